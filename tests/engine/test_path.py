"""The path as a whole: acceptance, time limits, cancellation, lanes and fencing."""

from __future__ import annotations

import asyncio
import time

import pytest
from holding import HI, Held
from rig import register, running

from fanout.core.delivery import Delivery
from fanout.core.endpoint import EndpointState
from fanout.core.model import Notification, Target
from fanout.core.policy import Policy
from fanout.errors import Conflict, InvalidMessage, MessageTooLarge, NotFound, UsageError
from fanout.plugin import ACCEPTED, Outcome, Unavailable
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio


async def test_nothing_is_stored_of_what_is_refused() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        with pytest.raises(MessageTooLarge, match="4096"):
            await engine.send(Notification(title="x", body="y" * 5000), "user:alice")
        with pytest.raises(UsageError, match="no app"):
            await engine.send(HI, "user:alice", app="shop")
        with pytest.raises(UsageError, match="no target"):
            await engine.send(HI, "alice")
        with pytest.raises(UsageError, match="within a year"):
            await engine.send(HI, "user:alice", at=float("nan"))
        with pytest.raises(MessageTooLarge):
            await engine.send_many([(HI, "user:alice"), (Notification(body="y" * 5000), "user:alice")])
        with pytest.raises(NotFound):
            await engine.status("00000000-0000-7000-8000-000000000000")

        assert await engine.storage.outstanding() in ({}, dict.fromkeys(await engine.storage.outstanding(), 0))
        assert [event async for event in engine.events()] == []
        assert transport.sends == []


async def test_a_binding_that_cannot_take_it_matters_only_where_the_target_has_it() -> None:
    small = ScriptedTransport(limit=100)
    large = ScriptedTransport(limit=4000)
    transports = {("default", "small"): small, ("default", "large"): large}
    long = Notification(body="y" * 500)
    async with running(transports=transports) as (engine, _):
        await register(engine, "alice", "phone", binding="large")
        await register(engine, "bob", "watch", binding="small")

        assert (await (await engine.send(long, "user:alice")).wait(60)).counts["accepted"] == 1
        with pytest.raises(InvalidMessage):
            await engine.send(long, "user:bob")
        with pytest.raises(InvalidMessage):
            await engine.send(long, "all")


async def test_send_many_is_one_commit() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")

        receipts = await engine.send_many([(Notification(title=str(n)), "user:alice") for n in range(100)])

        assert len({receipt.id for receipt in receipts}) == 100
        for receipt in receipts:
            assert (await receipt.wait(60)).counts["accepted"] == 1


async def test_an_idempotency_key_is_used_once() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")

        first = await engine.send(HI, "user:alice", idempotency_key="k")
        again = await engine.send(HI, "user:alice", idempotency_key="k")
        with pytest.raises(Conflict, match="'k' belongs to"):
            await engine.send(Notification(title="Other"), "user:alice", idempotency_key="k")
        await first.wait(60)

        assert again.id == first.id
        assert again.replayed
        assert not first.replayed
        assert len(transport.sends) == 1


async def test_a_newer_one_with_the_same_collapse_key_supersedes_what_waits() -> None:
    held = Held()
    async with running(held) as (engine, transport):
        transport.capacities[""] = 1
        await register(engine, "alice", "phone", "tablet", "watch")
        score = [Notification(title=f"{n}:0", collapse_key="score") for n in range(2)]
        first = await engine.send(score[0], "user:alice")
        await held.begun.acquire()
        second = await engine.send(score[1], "user:alice")
        held.open.set()

        old, new = await first.wait(60), await second.wait(60)

        assert new.counts["accepted"] == 3
        assert old.counts["superseded"] == 2
        assert old.counts["accepted"] == 1


async def test_nothing_is_sent_after_its_time() -> None:
    held = Held()
    async with running(held) as (engine, transport):
        transport.capacities[""] = 1
        await register(engine, "alice", "phone", "tablet")
        receipt = await engine.send(Notification(title="x", ttl=2), "user:alice")
        await held.begun.acquire()
        while time.time() < (await receipt.status()).expires_at:
            await asyncio.sleep(0.01)  # the wall clock is the signal here
        held.open.set()
        status = await receipt.wait(60)

        assert status.counts["expired"] == 1
        assert len(transport.sends) == 1


async def test_ttl_zero_is_tried_once_and_never_again() -> None:
    async with running(lambda m, d: Unavailable("unknown", reason="reset")) as (engine, transport):
        await register(engine, "alice", "phone")

        status = await (await engine.send(Notification(title="x", ttl=0), "user:alice")).wait(60)

        assert [sent.ttl for sent in transport.sends] == [0]
        assert status.counts["expired"] == 1


async def test_a_scheduled_one_goes_to_whom_is_registered_then() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "early", tags=["news"])
        receipt = await engine.send(HI, "topic:news", at=time.time() + 0.3)
        assert (await receipt.status()).state == "scheduled"
        assert receipt.total is None
        await register(engine, "bob", "late", tags=["news"])

        status = await receipt.wait(60)

        assert sorted(sent.address for sent in transport.sends) == ["early", "late"]
        assert status.counts["accepted"] == 2


async def test_a_topic_means_those_registered_at_acceptance() -> None:
    held = Held()
    async with running(held) as (engine, transport):
        await register(engine, "alice", "early", tags=["news"])
        await register(engine, "carol", "other", tags=["sport"])
        receipt = await engine.send(HI, "topic:news")
        await register(engine, "bob", "late", tags=["news"])
        held.open.set()

        assert (await receipt.wait(60)).counts["accepted"] == 1
        assert [sent.address for sent in transport.sends] == ["early"]


async def test_explicit_addresses_are_interned_and_belong_to_nobody() -> None:
    async with running() as (engine, transport):
        ids = await engine.endpoints.intern("push", ["stray"])
        assert await engine.endpoints.intern("push", ["stray"]) == ids

        assert (await (await engine.send(HI, Target.endpoints(ids))).wait(60)).counts["accepted"] == 1
        assert (await (await engine.send(HI, "all")).wait(60)).total == 0
        assert [endpoint async for endpoint in engine.endpoints.list()] == []


async def test_what_was_queued_for_an_address_that_changed_hands_is_cancelled() -> None:
    held = Held()
    async with running(held, role="both") as (engine, transport):
        transport.capacities[""] = 1
        (first,) = await register(engine, "alice", "first")
        (old,) = await register(engine, "alice", "shared")
        blocker = await engine.send(HI, Target.endpoints([first]))
        await held.begun.acquire()
        receipt = await engine.send(HI, Target.endpoints([old]))
        await engine.pause(receipt.id)
        (new,) = await register(engine, "bob", "shared")
        await engine.resume(receipt.id)
        held.open.set()
        await blocker.wait(60)

        status = await receipt.wait(60)

        assert new != old
        assert (await engine.endpoints.get(old)).state is EndpointState.REPLACED
        assert "shared" not in [sent.address for sent in transport.sends], "nobody gets another person's push"
        assert status.counts["accepted"] == 0


async def test_after_cancel_returns_nothing_more_goes() -> None:
    held = Held()
    async with running(held) as (engine, transport):
        transport.capacities[""] = 3
        for n in range(50):
            await register(engine, f"u{n}", f"d{n}")
        receipt = await engine.send(HI, "all")
        for _ in range(3):
            await held.begun.acquire()
        cancelling = asyncio.create_task(receipt.cancel())
        while not await engine.storage.stopped([receipt.id]):
            await asyncio.sleep(0.001)
        held.open.set()
        status = await cancelling
        sends = len(transport.sends)

        assert sends == 3
        assert status.counts["cancelled"] == 47
        assert status.counts["accepted"] == 3
        assert status.state == "cancelled"
        assert (await receipt.cancel()).counts == status.counts, "cancelling twice changes nothing"


async def test_urgent_overtakes_bulk() -> None:
    begun, release = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def one_by_one(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        begun.release()
        await release.acquire()
        return ACCEPTED

    async with running(one_by_one) as (engine, transport):
        transport.capacities[""] = 1
        for n in range(200):
            await register(engine, f"u{n}", f"d{n}")
        await engine.send(Notification(title="sale", lane="bulk"), "all")
        await begun.acquire()
        urgent = await engine.send(Notification(title="code", lane="urgent"), "user:u7")
        place = 0
        while transport.sends[-1].notification != urgent.id:
            await engine.storage.outstanding()  # as long as a read takes, so that leasing has its turns too
            release.release()
            await begun.acquire()
            place += 1
            assert place < 150, "not behind the whole broadcast"
        for _ in range(200):
            release.release()
        await urgent.wait(60)


async def test_a_stalled_worker_can_settle_nothing() -> None:
    """Its lease was taken over: what it learned is dropped, and the other's result stands."""
    held = Held()
    async with running(held) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await held.begun.acquire()
        later = time.time() + 1000
        chunks = await engine.storage.lease("other", "default", "push", 1, limit=10, now=later, until=later + 30)
        assert len(chunks) == 1
        from fanout.plugin import Settlement

        rejected = Settlement(chunks[0].id, chunks[0].epoch, results={("rejected", "by the other"): [0]})
        await engine.storage.settle([rejected], later)
        held.open.set()
        await asyncio.sleep(0)

        status = await receipt.wait(60)

        assert status.counts["rejected"] == 1
        assert status.counts["accepted"] == 0


async def test_a_transport_that_hangs_is_cancelled_and_named() -> None:
    hang = asyncio.Event()
    first = True

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        nonlocal first
        if first:
            first = False
            await hang.wait()
        return ACCEPTED

    policy = Policy(backoff_base=0.01, request_timeout=0.1, lease=0.3, checkpoint=0.02)
    async with running(answer, policy=policy) as (engine, transport):
        await register(engine, "alice", "phone")
        live = engine.live()

        status = await (await engine.send(HI, "user:alice")).wait(60)

        assert status.counts["accepted"] == 1
        async for event in live:
            if event.kind == "fault":
                assert "deadline" in event.data["text"]
                break
