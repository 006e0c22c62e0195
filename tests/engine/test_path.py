"""The path as a whole: acceptance, time limits, cancellation, lanes, fencing, and what a stop leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from rig import FAST, fresh_storage, register, running

from fanout.core.delivery import Delivery
from fanout.core.model import EndpointState, Notification, Target
from fanout.core.policy import Policy
from fanout.engine import Engine
from fanout.errors import Conflict, EngineClosed, InvalidMessage, MessageTooLarge, NotFound, UsageError
from fanout.plugin import ACCEPTED, Outcome, Unavailable
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")


class Held:
    """A script that holds every send until it is let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, message: ScriptedMessage, delivery: Delivery) -> Outcome:
        self.begun.release()
        await self.open.wait()
        return ACCEPTED


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
        receipt = await engine.send(HI, Target.endpoints([old]), at=time.time() + 0.2)
        (new,) = await register(engine, "bob", "shared")
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


async def test_leaving_gives_back_what_was_not_sent() -> None:
    """What is under way is awaited, the rest is somebody else's; nothing is lost or sent twice."""
    storage = fresh_storage()
    held = Held()
    first = ScriptedTransport(held)
    async with running(storage=storage, transports={("default", "push"): first}) as (engine, _):
        first.capacities[""] = 5
        for n in range(100):
            await register(engine, f"u{n}", f"d{n}")
        receipt = await engine.send(HI, "all")
        for _ in range(5):
            await held.begun.acquire()
        asyncio.get_running_loop().call_later(0.05, held.open.set)
    sent = [send.address for send in first.sends]
    assert len(sent) == 5

    async with running(storage=storage) as (engine, second):
        status = await engine.wait(receipt.id, 10)

    assert status.counts["accepted"] == 100
    assert len(second.sends) == 95
    assert not {send.address for send in second.sends} & set(sent)


async def test_leaving_is_bounded_although_a_gateway_hangs() -> None:
    held = Held()
    async with running(held, drain_timeout=0.05) as (engine, transport):
        await register(engine, "alice", "phone")
        await engine.send(HI, "user:alice")
        await held.begun.acquire()

    assert transport.in_flight == 0


async def test_what_the_host_raises_is_what_the_host_catches() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running():
            raise ZeroDivisionError


async def test_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        await (await engine.send(HI, "user:alice")).wait(60)

    assert asyncio.all_tasks() == before


async def test_a_closed_engine_says_so() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
    with pytest.raises(EngineClosed, match="inside"):
        await engine.send(HI, "user:alice")
    with pytest.raises(EngineClosed):
        await engine.endpoints.register(user="a", binding="push", address="b")


async def test_waiting_ends_when_the_engine_does() -> None:
    held = Held()
    async with running(held, drain_timeout=0.01) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await held.begun.acquire()
        waiting = asyncio.create_task(receipt.wait())
        with pytest.raises(TimeoutError):
            await receipt.wait(0.01)
    with pytest.raises(EngineClosed):
        await waiting


async def test_hooks_and_live_events_tell_after_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Hooks:
        def on_settled(self, batch: object) -> None:
            said.extend(item.state for item in batch)  # type: ignore[attr-defined]

        def on_event(self, event: object) -> None:
            said.append(event.kind)  # type: ignore[attr-defined]

    class Rude:
        def on_settled(self, batch: object) -> None:
            raise RuntimeError("a hook's own fault")

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def committed(*arguments: Any, **named: Any) -> Any:
            answer = await call(*arguments, **named)
            said.append(name)
            return answer

        return committed

    async with running(hooks=[Rude(), Hooks()]) as (engine, transport):
        for name in ("put", "settle"):
            monkeypatch.setattr(engine.storage, name, noted(f"{name} committed", getattr(engine.storage, name)))
        await register(engine, "alice", "phone", "tablet")
        await (await engine.send(HI, "user:alice")).wait(60)

    assert said.count("accepted") == 2
    assert "finished" in said
    assert said.index("put committed") < said.index("put")
    assert said.index("settle committed") < min(said.index("settled"), said.index("accepted"))


async def test_the_durable_log_is_read_with_a_cursor_and_followed() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        await (await engine.send(HI, "user:alice")).wait(60)
        events = [event async for event in engine.events()]
        cursor = events[-1].id
        assert [event async for event in engine.events(after=cursor)] == []

        follow = engine.events(after=cursor, follow=True)
        pending = asyncio.ensure_future(anext(follow))
        await (await engine.send(HI, "user:alice")).wait(60)
        event = await pending
        await follow.aclose()  # type: ignore[attr-defined]

        assert event.kind == "notification.finished"
        assert event.id > cursor


async def test_a_preview_puts_nothing() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone", "tablet")

        seen = await engine.preview(HI, "user:alice")

        assert seen.endpoints == {"push": 2}
        assert seen.sizes["push"] > 0
        assert transport.sends == []
        with pytest.raises(MessageTooLarge):
            await engine.preview(Notification(body="y" * 5000), "user:alice")


async def test_draining_ends_when_nothing_is_left() -> None:
    async with running(lambda m, d: ACCEPTED if d.attempt > 2 else Unavailable("unknown")) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice", at=time.time() + 0.1)

        report = await engine.drain()

        assert report.clean
        assert (await receipt.status()).counts["accepted"] == 1


async def test_import_takes_the_good_lines_and_names_the_bad() -> None:
    lines = [
        b'{"user":"alice","transport":"push","address":"a1","tags":["news"]}\n',
        b"no json\n",
        b'{"user":"bob","transport":"push"}\n',
        b'{"user":"bob","transport":"pigeon","address":"b"}\n',
        b"\n",
        b'{"user":"bob","transport":"push","address":"!!"}\n',
        b'{"user":"bob","transport":"push","address":"b1","color":"red"}\n',
        b'{"user":"bob","transport":"push","address":"b1"}\n',
    ]
    async with running() as (engine, transport):
        report = await engine.endpoints.import_(lines)

        assert report.imported == 2
        assert [line for line, _ in report.errors] == [2, 3, 4, 6, 7]
        assert all("!!" not in sentence for _, sentence in report.errors)
        assert "has push" in dict(report.errors)[4]


async def test_roles() -> None:
    storage = fresh_storage()
    async with running(storage=storage, role="submit") as (submitter, transport):
        await register(submitter, "alice", "phone")
        receipt = await submitter.send(HI, "user:alice")
        assert (await receipt.status()).counts["pending"] == 1
        assert transport.sends == []
    async with running(storage=storage, role="work") as (worker, transport):
        assert isinstance(worker, Engine)
        assert (await worker.wait(receipt.id, 10)).counts["accepted"] == 1


def test_it_runs_in_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> int:
        async with running(policy=FAST) as (engine, transport):
            await register(engine, "alice", "phone")
            return (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == 1
