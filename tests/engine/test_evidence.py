"""No verdict from one witness: what one endpoint, notification, connection or plugin fault says holds back nobody
else."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from rig import register, register_each, running

from fanout.core.delivery import Delivery
from fanout.core.endpoint import EndpointState
from fanout.core.model import Notification, Repeat
from fanout.engine import Engine
from fanout.plugin import (
    ACCEPTED,
    Deferred,
    Gone,
    Misconfigured,
    Outcome,
    Policy,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")
SLOW = Policy(probe=3600.0, backoff_base=600.0, backoff_throttled=3600.0, request_timeout=5.0)
"""What is held back once is held back for the rest of the test."""

ACCUSATIONS = [
    Misconfigured("BadJwtToken", Scope.GROUP),
    Misconfigured("InvalidProviderToken"),
    Misconfigured("Blocked", Scope.APP),
    Throttled(3600.0, Scope.GROUP),
    Throttled(None, Scope.QUOTA),
    Throttled(None, Scope.BINDING),
    Unavailable("no", Scope.GROUP, "refused", 3600.0),
    Unavailable("unknown", Scope.GROUP, "503", 3600.0),
    Unavailable("unknown", Scope.BINDING, "503", 3600.0),
]


class Heard:
    """The events of an engine, by kind."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.closed: list[dict[str, Any]] = []
        self.hooks = [SimpleNamespace(on_event=self._on_event)]

    def _on_event(self, event: Any) -> None:
        self.kinds[event.kind] += 1
        if event.kind == "gate.closed":
            self.closed.append(event.data)


async def asked(transport: ScriptedTransport, address: str) -> None:
    while all(sent.address != address for sent in transport.sends):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("accusation", ACCUSATIONS, ids=repr)
@pytest.mark.parametrize("lane", ["normal", "urgent"])
async def test_one_stale_endpoint_stops_no_other(accusation: Outcome, lane: Any) -> None:
    """Whatever it says of its group, quota, binding or app: it waits alone, under its own reason, and all others are
    served."""
    heard = Heard()

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return accusation if delivery.address == "stale" else ACCEPTED

    async with running(answer, policy=SLOW, hooks=heard.hooks) as (engine, transport):
        (stale,) = await register(engine, "eve", "stale")
        await register(engine, "alice", *(f"phone-{n}" for n in range(10)))
        first = await engine.send(HI, "user:eve")
        await asked(transport, "stale")

        assert (await (await engine.send(Notification(title="x", lane=lane), "user:alice")).wait(60)).counts[
            "accepted"
        ] == 10
        again = await engine.send(HI, "all")
        while (status := await again.status()).counts["accepted"] < 10:
            await asyncio.sleep(0.005)

        assert heard.closed == []
        while not (await first.status()).pending_by_reason:
            await asyncio.sleep(0.005)
        waits = [step.reason for step in await engine.explain(first.id, stale) if step.waiting]
        assert waits[-1] == accusation.reason  # type: ignore[union-attr]
        assert status.counts["pending"] == 1


async def test_a_gateway_that_ends_each_connection_early_accuses_no_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    """A GOAWAY excludes the same delivery again and again, while others are accepted: it is the gateway's way to go on
    (`keepalive_requests` of nginx), and no trouble of the group or the endpoint."""
    heard, times = Heard(), iter(range(7))

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if delivery.address == "late" and (number := next(times, None)) is not None:
            return Unavailable("no", Scope.ENDPOINT, "goaway", cause=f"connection {number}")
        return ACCEPTED

    policy = Policy(backoff_base=0.1, request_timeout=5.0)
    async with running(answer, policy=policy, hooks=heard.hooks) as (engine, _):
        (late,) = await register(engine, "eve", "late")
        await register(engine, "alice", *(f"phone-{n}" for n in range(5)))
        receipt = await engine.send(HI, "all")
        assert (await receipt.wait(60)).counts["accepted"] == 6
        steps = [step for step in await engine.explain(receipt.id, late) if step.waiting]
        assert {(step.waiting, step.reason) for step in steps if step.reason} <= {("gate", "goaway")}
    assert heard.closed == []
    assert not [record for record in caplog.records if "alone says" in record.message]


@pytest.mark.parametrize("accusation", ACCUSATIONS[:-2], ids=repr)
async def test_two_endpoints_of_two_notifications_hold_the_scope_and_are_named(accusation: Outcome) -> None:
    heard = Heard()
    async with running(lambda m, d: accusation, policy=SLOW, hooks=heard.hooks) as (engine, transport):
        await register(engine, "alice", "one")
        await register(engine, "bob", "two")
        await register(engine, "carol", "three")
        for user, address in (("alice", "one"), ("bob", "two")):
            await engine.send(HI, f"user:{user}")
            await asked(transport, address)
        while not heard.closed:
            await asyncio.sleep(0.005)
        waiting = await engine.send(HI, "user:carol")
        while not (await waiting.status()).pending_by_reason:
            await asyncio.sleep(0.005)

        assert len(transport.sends) <= 2 * (1 + SLOW.free_retries)
        assert len(heard.closed[0]["witnesses"]) == 2
        named = f"(said by {', '.join(heard.closed[0]['witnesses'])})"
        while not any(named in gate.reason for gate in await engine.gates()):
            await asyncio.sleep(0.005)


async def test_one_notification_that_the_gateway_cannot_take_delays_no_alert() -> None:
    """It is answered 500 for each of 300 devices. Urgent singles to good devices go at once, before it and after it."""
    heard = Heard()

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Unavailable("unknown", reason="500") if message.notification.title == "bad" else ACCEPTED

    async with running(answer, policy=SLOW, hooks=heard.hooks) as (engine, transport):
        await register(engine, "alice", "phone")
        await register(engine, "crowd", *(f"d{n}" for n in range(300)))
        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
        await engine.send(Notification(title="bad"), "user:crowd")
        await asked(transport, "d10")
        for _ in range(5):
            alert = await engine.send(Notification(title="alert", lane="urgent"), "user:alice")
            assert (await alert.wait(60)).counts["accepted"] == 1
        assert {each["scope"] for each in heard.closed} <= {"notification"}
        assert len(transport.sends) < 300, "it is held back by itself"


async def test_one_notification_alone_closes_the_gate_and_the_next_one_opens_it() -> None:
    """With nothing else about, its endpoints are witnesses enough; another notification is the probe, and does not
    wait."""
    heard = Heard()

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Unavailable("unknown", reason="500") if message.notification.title == "bad" else ACCEPTED

    async with running(answer, policy=SLOW, hooks=heard.hooks) as (engine, transport):
        await register(engine, "alice", "phone")
        await register(engine, "crowd", *(f"d{n}" for n in range(300)))
        bad = await engine.send(Notification(title="bad"), "user:crowd")
        while not heard.closed:
            await asyncio.sleep(0.005)
        assert [each["scope"] for each in heard.closed] == ["group"]
        for _ in range(3):
            alert = await engine.send(Notification(title="alert", lane="urgent"), "user:alice")
            assert (await alert.wait(60)).counts["accepted"] == 1
        assert heard.kinds["gate.opened"] == 1
        assert (await bad.status()).counts["pending"] == 300


async def test_a_plugin_that_raises_over_one_notification_touches_no_other() -> None:
    heard = Heard()

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if message.notification.title == "bad":
            raise RuntimeError("escaped")
        return ACCEPTED

    async with running(answer, policy=SLOW, hooks=heard.hooks) as (engine, transport):
        await register(engine, "alice", "phone")
        await register(engine, "crowd", *(f"d{n}" for n in range(300)))
        await engine.send(Notification(title="bad"), "user:crowd")
        await asked(transport, "d10")
        for _ in range(3):
            alert = await engine.send(Notification(title="alert", lane="urgent"), "user:alice")
            assert (await alert.wait(60)).counts["accepted"] == 1
        assert {each["scope"] for each in heard.closed} <= {"notification"}


async def test_one_cut_connection_closes_nothing() -> None:
    """200 of several notifications are under way on it: they are one witness."""
    heard = Heard()
    cut: list[str] = []

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if delivery.address not in cut and len(cut) < 200:
            cut.append(delivery.address)
            return Unavailable("unknown", reason="closed", cause="connection 1")
        return ACCEPTED

    policy = Policy(backoff_base=0.01)
    async with running(answer, policy=policy, hooks=heard.hooks) as (engine, _):
        await register(engine, "crowd", *(f"d{n}" for n in range(100)))
        await register(engine, "others", *(f"e{n}" for n in range(100)))
        receipts = [await engine.send(HI, f"user:{user}") for user in ("crowd", "others")]
        for receipt in receipts:
            assert (await receipt.wait(60)).counts["accepted"] == 100
        assert heard.closed == []


@pytest.mark.parametrize("scope", [Scope.ENDPOINT, Scope.GROUP, Scope.BINDING])
async def test_a_gateway_that_breaks_off_its_answers_pushes_to_no_device_without_limit(scope: Scope) -> None:
    pushes: Counter[str] = Counter()
    times = iter(range(1_000_000))

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        pushes[delivery.address] += 1
        return Unavailable("unknown", scope, "closed", cause=f"connection {next(times)}")

    policy = Policy(backoff_base=0.001, backoff_cap=0.002, attempts=5, retry_floor=1000.0)
    async with running(answer, policy=policy) as (engine, _):
        await register(engine, "alice", *(f"d{n}" for n in range(20)))
        status = await (await engine.send(HI, "user:alice")).wait(60)

    assert status.counts["dead"] == 20
    assert set(pushes.values()) == {5}


async def test_a_probe_rotates_and_goes_to_whom_the_gateway_has_accepted() -> None:
    """After the gate's time, the endpoints that have accused are not asked first."""
    down = False
    probes: list[tuple[str, bool]] = []

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if down:
            probes.append((delivery.address, delivery.fresh))
            return Misconfigured("InvalidProviderToken")
        return ACCEPTED

    policy = Policy(probe=0.05, backoff_base=0.02)
    async with running(answer, policy=policy) as (engine, _):
        await register(engine, "alice", "known")
        await (await engine.send(HI, "user:alice")).wait(60)
        down = True
        await register(engine, "crowd", *(f"d{n}" for n in range(8)))
        first = await engine.send(HI, "user:crowd")
        while len({address for address, _ in probes}) < 3:
            await asyncio.sleep(0.005)
        closed = len(probes)
        later = await engine.send(HI, "user:alice")
        while ("known", True) not in probes:
            await asyncio.sleep(0.005)
        asked = [address for address, fresh in probes[closed:] if fresh]
        assert len(set(asked)) >= min(3, len(asked)), "probes rotate"
        down = False
        for receipt in (first, later):
            await receipt.wait(60)


@pytest.mark.parametrize("repeat", ["prefer_delivery", "prefer_once", "at_most_once"])
async def test_what_may_be_sent_but_once_asks_for_a_proven_connection(repeat: Repeat) -> None:
    fresh: list[bool] = []

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        fresh.append(delivery.fresh)
        return ACCEPTED

    async with running(answer) as (engine, _):
        await register(engine, "alice", "phone")
        await (await engine.send(Notification(title="Hi", repeat=repeat), "user:alice")).wait(60)

    assert fresh == [repeat != "prefer_delivery"]


# -- deaths


async def dead_of(engine: Engine) -> int:
    return len([each async for each in engine.endpoints.list(state=EndpointState.GONE)])


@pytest.mark.parametrize("devices", [1, 12, 60])
async def test_before_the_first_acceptance_nothing_uncertain_is_removed(
    devices: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A small site whose credential is wrong keeps its devices, and the log names each by a short hash."""
    with caplog.at_level(logging.WARNING, "fanout.evidence"):
        async with running(lambda m, d: Gone("BadDeviceToken", certain=False)) as (engine, _):
            await register_each(engine, [(f"u{n}", f"device-{n}") for n in range(devices)])
            status = await (await engine.send(Notification(title="Hi", ttl=3), "all")).wait(60)
            assert await dead_of(engine) == 0
    refused = status.reasons["rejected"]["BadDeviceToken (not believed)"]
    assert refused == devices or refused >= 20
    assert len([record for record in caplog.records if "not believed" in record.message]) >= refused
    assert "device-" not in caplog.text


_WRONG = [
    (40, range(400, 401)),
    pytest.param(50, range(1, 501), marks=pytest.mark.long("less and more than half of them are tried")),
    (60, range(1, 20)),
]


@pytest.mark.parametrize(("wrong", "removed"), _WRONG)
async def test_sandbox_tokens_in_production_harm_no_good_device(wrong: int, removed: range) -> None:
    """Of 1,000 devices so many percent are called dead: the good ones have the broadcast and alerts at once."""

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        number = int(delivery.address[1:])
        return Gone("BadDeviceToken", certain=False) if number * 7 % 100 < wrong else ACCEPTED

    async with running(answer, policy=SLOW) as (engine, _):
        await register(engine, "crowd", *(f"d{n + 99}" for n in range(1000)))
        receipt = await engine.send(HI, "all")
        status = await receipt.wait(60)
        alert = await engine.send(Notification(title="alert", lane="urgent"), "user:crowd")
        await alert.wait(60)

        assert status.counts["accepted"] == 1000 - 10 * wrong
        assert await dead_of(engine) in removed or status.counts["gone"] in removed


async def test_the_purge_guard_holds_back_neither_the_accepted_nor_the_urgent() -> None:
    """Next to nothing but uncertain deaths comes back: others wait, those that were accepted before do not."""
    wrong = False

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Gone("BadDeviceToken", certain=False) if wrong and delivery.address[0] == "d" else ACCEPTED

    async with running(answer, policy=SLOW) as (engine, transport):
        await register(engine, "alice", "known")
        await (await engine.send(HI, "user:alice")).wait(60)
        wrong = True
        await register(engine, "crowd", *(f"d{n}" for n in range(300)))
        await register(engine, "bob", "new")
        crowd = await engine.send(HI, "user:crowd")
        while not (await crowd.status()).pending_by_reason.get("breaker"):
            await asyncio.sleep(0.005)

        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
        urgent = await engine.send(Notification(title="alert", lane="urgent"), "user:bob")
        assert (await urgent.wait(60)).counts["accepted"] == 1
        assert await dead_of(engine) < 20
        assert len(transport.sends) < 303


async def test_a_new_credential_is_believed_only_after_its_own_first_acceptance() -> None:
    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Gone("BadDeviceToken", certain=False) if delivery.address.startswith("dead") else ACCEPTED

    async with running(answer) as (engine, _):
        await register(engine, "alice", "phone")
        await register(engine, "bob", "dead-1", "dead-2")
        (state,) = engine._settler.states
        await (await engine.send(HI, "user:alice")).wait(60)
        renewed = ScriptedTransport(answer)
        async with renewed:
            state.replace(renewed)
            assert (await (await engine.send(HI, "user:bob")).wait(60)).counts["rejected"] == 2
            await (await engine.send(HI, "user:alice")).wait(60)
            assert (await (await engine.send(HI, "user:bob")).wait(60)).counts["gone"] == 2


@pytest.mark.parametrize("nothing", [Deferred("overload"), Unavailable("no", reason="connect")], ids=repr)
@pytest.mark.parametrize("narrow", ["notification", "topic", "uncertain endpoints"])
async def test_a_probe_that_comes_to_nothing_leaves_the_gate_of_its_notification_topic_or_standing_to_the_next(
    narrow: str, nothing: Outcome
) -> None:
    """It was not sent, or met something else: the next probe goes at once, and not two requests' deadlines later (2
    hours here)."""
    heard = Heard()
    trouble = {
        "notification": Unavailable("unknown", reason="500"),
        "topic": Throttled(0.02, Scope.TOPIC, named=False),
        "uncertain endpoints": Gone("BadDeviceToken", certain=False),
    }[narrow]
    nothings = 0

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        nonlocal nothings
        if message.notification.title != "bad":
            return ACCEPTED
        if not any(each["scope"] == narrow for each in heard.closed):
            return trouble
        nothings += 1
        return nothing if nothings <= 5 else ACCEPTED

    policy = Policy(backoff_base=0.02, backoff_cap=0.05, probe=0.02, request_timeout=3600.0, free_retries=0, lease=1.0)
    async with running(answer, policy=policy, hooks=heard.hooks) as (engine, _):
        await register(engine, "alice", "phone")
        await register(engine, "crowd", *(f"d{n}" for n in range(25)))
        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
        bad = await engine.send(Notification(title="bad"), "user:crowd")
        status = await bad.wait(60)
        assert status.finished_at is not None
        assert [each["scope"] for each in heard.closed].count(narrow) >= 1


async def test_a_fault_of_all_devices_is_no_line_in_the_log_for_each_of_them(caplog: pytest.LogCaptureFixture) -> None:
    """Devices that were accepted before, and whose topic is then wrong: each delivery says that its device is dead."""
    wrong = False

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Gone("DeviceTokenNotForTopic", certain=False) if wrong else ACCEPTED

    with caplog.at_level(logging.INFO, "fanout.evidence"):
        async with running(answer) as (engine, _):
            await register_each(engine, [(f"u{n}", f"device-{n}") for n in range(150)])
            await (await engine.send(Notification(title="Hi"), "all")).wait(60)
            wrong = True
            await (await engine.send(Notification(title="Hi"), "all")).wait(60)
    kinds = Counter(record.msg for record in caplog.records if "endpoint" in record.msg)
    assert max(kinds.values()) == 100, "lines a minute of one kind"
