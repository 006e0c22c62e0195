"""Each outcome, from the transport's answer to the stored state."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rig import FAST, fresh_storage, register, register_each, running

from fanout.core.delivery import Delivery
from fanout.core.endpoint import EndpointState
from fanout.core.model import Notification, Repeat
from fanout.engine.observing import observe
from fanout.plugin import (
    ACCEPTED,
    Accepted,
    Address,
    Deferred,
    Gone,
    Misconfigured,
    Moved,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.scripted import ScriptedMessage

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")


def answers(*script: Outcome | Exception) -> Callable[[ScriptedMessage, Delivery], Outcome]:
    """Answer each address with these in turn, then with ACCEPTED."""
    seen: Counter[str] = Counter()

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        turn = seen[delivery.address]
        seen[delivery.address] += 1
        if turn >= len(script):
            return ACCEPTED
        given = script[turn]
        if isinstance(given, Exception):
            raise given
        return given

    return answer


async def test_every_device_of_a_user_gets_it_once() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone", "tablet")
        await register(engine, "bob", "bobs")

        receipt = await engine.send(HI, "user:alice")
        status = await receipt.wait(60)

        assert receipt.total == 2
        assert status.counts["accepted"] == 2
        assert sorted(sent.address for sent in transport.sends) == ["phone", "tablet"]
        assert {sent.notification for sent in transport.sends} == {receipt.id}
        assert len({sent.delivery for sent in transport.sends}) == 2


@pytest.mark.parametrize(
    "first",
    [
        Unavailable("unknown", reason="reset"),
        Unavailable("unknown", Scope.GROUP, "503"),
        Unavailable("no", reason="refused"),
        Unavailable("no", Scope.GROUP, "connect", after=0.01),
        Throttled(0.01),
        Throttled(0.01, Scope.QUOTA),
        Throttled(None, Scope.BINDING),
        Misconfigured("InvalidProviderToken"),
        Misconfigured("BadTopic", Scope.TOPIC),
        RuntimeError("escaped"),
    ],
    ids=repr,
)
async def test_what_passes_at_the_second_try_is_delivered(first: Outcome | Exception) -> None:
    async with running(answers(first)) as (engine, transport):
        await register(engine, "alice", "phone")

        status = await (await engine.send(HI, "user:alice")).wait(60)

        assert status.counts["accepted"] == 1
        assert len({sent.delivery for sent in transport.sends}) == 1, "the delivery id is the same over retries"
        assert len(transport.sends) == 2
        assert status.attempts == 2


@pytest.mark.parametrize("repeat", ["prefer_delivery", "prefer_once", "at_most_once"])
async def test_an_event_of_our_own_touches_nothing(repeat: Repeat) -> None:
    """It costs no attempt under any `repeat`, and no gate closes however often it comes in a row."""
    left = 60

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        nonlocal left
        left -= 1
        return Deferred("overload") if left >= 0 else ACCEPTED

    heard: list[str] = []
    hooks = SimpleNamespace(on_event=lambda event: heard.append(event.kind))
    async with running(answer, hooks=[hooks]) as (engine, transport):
        await register_each(engine, [(f"u{n}", f"d{n}") for n in range(20)])
        status = await (await engine.send(Notification(title="Hi", repeat=repeat), "all")).wait(60)

        assert status.counts["accepted"] == 20
        assert status.attempts == 20
        assert {sent.attempt for sent in transport.sends} == {1}
        (binding,) = observe(engine).bindings
        assert binding.budget == FAST.retry_burst
        assert not set(heard) & {"gate.closed", "alarm"}


async def test_what_waits_here_ends_with_its_ttl() -> None:
    """It is reported as waiting for us, and expires under the reason that it waited for."""
    after = 0.05
    async with running(lambda m, d: Deferred("overload", after)) as (engine, transport):
        (endpoint,) = await register(engine, "alice", "phone")

        receipt = await engine.send(Notification(title="Hi", ttl=60), "user:alice")
        while not (waiting := (await receipt.status()).pending_by_reason).get("limiter"):
            await asyncio.sleep(0.001)
        after = 100.0  # its next turn would come after its TTL
        status = await receipt.wait(60)

        assert waiting == {"limiter": 1}
        assert status.counts["expired"] == 1
        assert [row async for row in engine.deliveries(receipt.id)] == [(endpoint, "expired", "overload")]
        assert {sent.attempt for sent in transport.sends} == {1}


@pytest.mark.parametrize("repeat", ["prefer_once", "at_most_once"])
async def test_what_may_have_left_before_we_ended_it_is_not_sent_again(repeat: Repeat) -> None:
    async with running(answers(Deferred("closed", sent="unknown"))) as (engine, transport):
        await register(engine, "alice", "phone")

        status = await (await engine.send(Notification(title="Hi", repeat=repeat), "user:alice")).wait(60)

        assert status.reasons["dead"] == {"unknown: closed": 1}
        assert len(transport.sends) == 1


async def test_what_may_have_left_before_we_ended_it_is_not_sent_for_ever() -> None:
    async with running(lambda m, d: Deferred("deadline of the engine", sent="unknown")) as (engine, transport):
        await register(engine, "alice", "phone")

        status = await (await engine.send(HI, "user:alice")).wait(60)

        assert status.counts["dead"] == 1
        assert len(transport.sends) == FAST.attempts


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (Accepted("theirs"), "accepted", ""),
        (Rejected("PayloadTooLarge"), "rejected", "PayloadTooLarge"),
        (Gone("Unregistered"), "gone", "Unregistered"),
        (Gone("Unregistered", since=1.0), "rejected", "Unregistered (before its registration)"),
    ],
    ids=repr,
)
async def test_what_ends_at_once(outcome: Outcome, state: str, reason: str) -> None:
    async with running(answers(outcome)) as (engine, transport):
        (endpoint,) = await register(engine, "alice", "phone")

        receipt = await engine.send(HI, "user:alice")
        status = await receipt.wait(60)

        assert status.counts[state] == 1
        assert [row async for row in engine.deliveries(receipt.id)] == [(endpoint, state, reason)]
        assert len(transport.sends) == 1


async def test_a_dead_endpoint_is_quarantined_and_said_so() -> None:
    async with running(answers(Gone("Unregistered"))) as (engine, transport):
        (endpoint,) = await register(engine, "alice", "phone")

        await (await engine.send(HI, "user:alice")).wait(60)

        assert (await engine.endpoints.get(endpoint)).state is EndpointState.GONE
        assert ("endpoint.gone", endpoint) in [(e.kind, e.data.get("endpoint")) async for e in engine.events()]
        assert (await engine.send(HI, "user:alice")).total == 0
        assert await engine.endpoints.restore(endpoint) == 1
        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1


async def test_a_registration_meanwhile_outlives_the_verdict() -> None:
    """The gateway's answer concerns the old registration; the new generation stays."""
    release = asyncio.Event()

    async def late(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        await release.wait()
        return Gone("Unregistered")

    async with running(late) as (engine, transport):
        (endpoint,) = await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        while not transport.sends:
            await asyncio.sleep(0.001)
        await register(engine, "alice", "phone")
        release.set()
        await receipt.wait(60)

        assert (await engine.endpoints.get(endpoint)).state is EndpointState.ACTIVE


async def test_a_moved_endpoint_is_followed() -> None:
    async with running(answers(Moved(Address("newplace")))) as (engine, transport):
        (endpoint,) = await register(engine, "alice", "oldplace")
        transport.script = lambda m, d: Moved(Address("newplace")) if d.address == "oldplace" else ACCEPTED

        status = await (await engine.send(HI, "user:alice")).wait(60)

        assert status.counts["accepted"] == 1
        assert [sent.address for sent in transport.sends] == ["oldplace", "newplace"]
        assert (await engine.endpoints.get(endpoint)).address.value == "newplace"


async def test_doubt_is_not_repeated_with_prefer_once() -> None:
    async with running(answers(Unavailable("unknown", reason="reset"))) as (engine, transport):
        await register(engine, "alice", "phone")

        status = await (await engine.send(Notification(title="x", repeat="prefer_once"), "user:alice")).wait(60)

        assert status.counts["dead"] == 1
        assert status.reasons["dead"] == {"unknown: reset": 1}
        assert len(transport.sends) == 1


async def test_what_never_left_is_repeated_even_with_at_most_once() -> None:
    async with running(answers(Unavailable("no", reason="refused"))) as (engine, transport):
        await register(engine, "alice", "phone")

        status = await (await engine.send(Notification(title="x", repeat="at_most_once"), "user:alice")).wait(60)

        assert status.counts["accepted"] == 1


async def test_attempts_run_out() -> None:
    from fanout.core.policy import Policy

    policy = Policy(attempts=3, backoff_base=0.01)
    async with running(lambda m, d: Unavailable("unknown", reason="reset"), policy=policy) as (engine, transport):
        await register(engine, "alice", "phone")

        status = await (await engine.send(HI, "user:alice")).wait(60)

        assert status.reasons["dead"] == {"3 attempts: reset": 1}
        assert [sent.attempt for sent in transport.sends] == [1, 2, 3]


async def test_a_wrong_credential_loses_and_counts_nothing() -> None:
    """All are parked, one probe goes at a time, and when the credential is mended all arrive."""
    broken = True

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Misconfigured("InvalidProviderToken") if broken else ACCEPTED

    async with running(answer) as (engine, transport):
        await register_each(engine, [(f"u{n}", f"d{n}") for n in range(300)])
        live = engine.live()
        receipt = await engine.send(HI, "all")
        alarms = 0
        async for event in live:
            alarms += event.kind == "alarm"
            if alarms == 5:
                break
        status = await receipt.status()
        assert status.counts["pending"] == 300
        most = transport.most_in_flight
        sends = len(transport.sends)
        broken = False

        status = await receipt.wait(60)

        assert status.counts["accepted"] == 300
        assert sends < 300 + 5, "after the first window, one probe per opening"
        assert most <= 1000


async def test_a_total_outage_writes_no_row_per_delivery() -> None:
    down = True

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Unavailable("no", Scope.GROUP, "connect") if down else ACCEPTED

    async with running(answer) as (engine, transport):
        await register_each(engine, [(f"u{n}", f"d{n}") for n in range(500)])
        live = engine.live()
        receipt = await engine.send(HI, "all")
        closed = 0
        async for event in live:
            closed += event.kind == "gate.closed"
            if closed == 4:
                break
        pending = (await receipt.status()).pending_by_reason
        assert sum(pending.values()) == 500
        assert "backoff" not in pending
        down = False

        assert (await receipt.wait(60)).counts["accepted"] == 500


async def test_one_dead_host_slows_no_other() -> None:
    hang = asyncio.Event()

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if delivery.group == "hung.example":
            await hang.wait()
        return ACCEPTED

    async with running(answer, storage=fresh_storage()) as (engine, transport):
        transport.capacities = {"hung.example": 5, "good.example": 5}
        await register_each(engine, [(f"u{n}", f"{host}.example/{n}") for n in range(50) for host in ("hung", "good")])
        live = engine.live()
        receipt = await engine.send(HI, "all")
        accepted = 0
        async for event in live:
            accepted += event.data.get("counts", {}).get("accepted", 0) if event.kind == "settled" else 0
            if accepted == 50:
                break
        assert {sent.address.split("/")[0] for sent in transport.sends[-5:]} == {"good.example"} or accepted == 50
        hang.set()

        assert (await receipt.wait(60)).counts["accepted"] == 100
