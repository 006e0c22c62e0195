"""When to send, when to wait, when to stop: the policy as the engine carries it out."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from rig import FAST, fresh_storage, register, running

from fanout.core.delivery import Delivery
from fanout.core.endpoint import EndpointState
from fanout.core.model import Notification, Target
from fanout.core.policy import BacklogLimits, Policy
from fanout.errors import Backlogged
from fanout.plugin import ACCEPTED, Gone, Misconfigured, Outcome, Scope, Throttled, Unavailable
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")
SLOW = Policy(backoff_base=30.0, backoff_throttled=30.0, probe=30.0)
"""Whoever is told to wait waits longer than any test runs."""


def only(*addresses: str, outcome: Outcome) -> object:
    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return outcome if delivery.address in addresses else ACCEPTED

    return answer


async def settled(engine: object, id: str, **counts: int) -> None:
    """Until the status counts so."""
    while True:
        status = await engine.status(id)  # type: ignore[attr-defined]
        if all(status.counts[state] == n for state, n in counts.items()):
            return
        await asyncio.sleep(0.005)


async def reason_of(engine: object, id: str, reason: str) -> None:
    """Until deliveries of it wait for this reason."""
    while not (await engine.status(id)).pending_by_reason.get(reason):  # type: ignore[attr-defined]
        await asyncio.sleep(0.005)


async def test_an_endpoint_in_back_off_holds_back_its_other_deliveries() -> None:
    script = only("phone", outcome=Throttled(25.0))
    async with running(script, policy=SLOW) as (engine, transport):  # type: ignore[arg-type]
        await register(engine, "alice", "phone", "tablet")
        first = await engine.send(HI, "user:alice")
        await reason_of(engine, first.id, "backoff")
        transport.sends.clear()

        second = await engine.send(HI, "user:alice")
        await settled(engine, second.id, accepted=1)
        await reason_of(engine, second.id, "backoff")

        assert [sent.address for sent in transport.sends] == ["tablet"]
        assert (await engine.status(second.id)).attempts == 1, "waiting behind another costs no attempt"


async def test_an_urgent_delivery_probes_an_endpoint_in_back_off_and_frees_it() -> None:
    calls: Counter[str] = Counter()

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        calls[delivery.address] += 1
        return Throttled(25.0) if calls[delivery.address] == 1 else ACCEPTED

    async with running(answer, policy=SLOW) as (engine, _):
        await register(engine, "alice", "phone")
        first = await engine.send(HI, "user:alice")
        await reason_of(engine, first.id, "backoff")

        urgent = await engine.send(Notification(title="Now", lane="urgent"), "user:alice")

        assert (await urgent.wait(60)).counts["accepted"] == 1


async def test_a_topic_that_is_refused_holds_back_no_other_topic() -> None:
    class Topical(ScriptedTransport):
        def prepare(self, notification: Notification) -> ScriptedMessage:
            message = super().prepare(notification)
            message.topic = str(notification.data.get("topic", ""))
            return message

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Misconfigured("BadTopic", Scope.TOPIC) if message.topic == "bad" else ACCEPTED

    async with running(transports={("default", "push"): Topical(answer)}, policy=SLOW) as (engine, transport):
        await register(engine, "alice", *(f"phone-{n}" for n in range(20)))
        bad = await engine.send(Notification(data={"topic": "bad"}), "user:alice")
        await reason_of(engine, bad.id, "breaker")
        good = await engine.send(Notification(data={"topic": "good"}), "user:alice")

        assert (await good.wait(60)).counts["accepted"] == 20
        assert (await engine.status(bad.id)).counts["pending"] == 20
        assert len(transport.sends) < 40, "what waits behind the topic's gate is not sent"


async def test_an_answer_about_the_app_holds_back_all_its_bindings_and_no_other_app() -> None:
    refused = ScriptedTransport(lambda m, d: Throttled(25.0, Scope.APP))
    transports = {("default", "a"): refused, ("default", "b"): ScriptedTransport(), ("other", "a"): ScriptedTransport()}
    async with running(transports=transports, policy=SLOW) as (engine, _):
        await register(engine, "alice", "one", "other", binding="a")  # one endpoint's word is not enough
        await register(engine, "bob", "two", binding="b")
        await engine.endpoints.register(user="carol", binding="a", address="three", app="other")
        first = await engine.send(HI, "user:alice")
        await reason_of(engine, first.id, "quota")

        second = await engine.send(HI, "user:bob")
        third = await engine.send(HI, "user:carol", app="other")

        assert (await third.wait(60)).counts["accepted"] == 1
        assert (await engine.status(second.id)).counts["pending"] == 1
        assert transports["default", "b"].sends == []
        told: set[tuple[str, str, str]] = set()
        while not told >= {("default", "a", "app"), ("default", "b", "app")}:
            told = {(note.app, note.binding, note.scope) for note in await engine.gates()}
            await asyncio.sleep(0.005)


async def test_an_empty_budget_parks_retries_and_fails_none() -> None:
    policy = Policy(
        backoff_base=0.001, backoff_cap=0.002, retry_burst=10, retry_ratio=0.0, retry_floor=0.001, attempts=50
    )
    turn = [0]

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        turn[0] += 1
        return Unavailable("unknown", reason="503") if turn[0] % 2 else ACCEPTED

    async with running(answer, policy=policy) as (engine, transport):
        await register(engine, "alice", *(f"phone-{n}" for n in range(200)))
        receipt = await engine.send(HI, "user:alice")

        await reason_of(engine, receipt.id, "budget")
        while (await engine.status(receipt.id)).pending_by_reason.keys() - {"budget"}:
            await asyncio.sleep(0.01)

        status = await engine.status(receipt.id)
        assert status.counts["accepted"] + status.counts["pending"] == 200
        assert 200 <= transport.calls <= 200 + 10 + 1


async def test_after_an_outage_the_load_comes_back_by_and_by() -> None:
    down = [True]
    policy = Policy(backoff_base=0.02, ramp=1e9, request_timeout=2.0)

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome | asyncio.Future[Outcome]:
        if down[0]:
            return Unavailable("unknown", Scope.GROUP, "down")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, lambda: future.done() or future.set_result(ACCEPTED))
        return future

    async with running(answer, policy=policy) as (engine, transport):
        await register(engine, "alice", *(f"phone-{n}" for n in range(600)))
        receipt = await engine.send(HI, "user:alice")
        await reason_of(engine, receipt.id, "gate")
        down[0] = False
        transport.most_in_flight = 0

        assert (await receipt.wait(60)).counts["accepted"] == 600
        assert transport.most_in_flight <= 100, "a tenth of the capacity of 1,000"


@pytest.mark.parametrize("before", [1, 2])
async def test_a_limit_of_one_grows_again(before: int) -> None:
    """Whatever a lone sender has sent before: it is as many answers, and not certain of its turns, that are timed."""

    def answer(message: ScriptedMessage, delivery: Delivery) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, lambda: future.done() or future.set_result(ACCEPTED))
        return future

    async with running(answer) as (engine, transport):
        await register(engine, "bob", "desk")
        await register(engine, "alice", *(f"phone-{n}" for n in range(600)))
        for _ in range(before):
            await (await engine.send(HI, "user:bob")).wait(60)
        (state,) = engine._settler.states
        (group,) = state.groups.values()
        group.limiter.limit = 1.0
        state.adjust(group)
        transport.most_in_flight = 0

        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 600
        assert transport.most_in_flight > 1


async def test_a_slow_gateway_narrows_itself_and_says_so_and_nobody_else() -> None:
    async def answer() -> Outcome:
        # Slower and slower, so that it never becomes what is usual.
        await asyncio.sleep(0.002 if busy.calls < 2000 else 0.2 * 2 ** ((busy.calls - 2000) / 300))
        return ACCEPTED

    busy = ScriptedTransport(lambda m, d: answer(), record=False)
    transports = {("default", "push"): busy, ("default", "other"): ScriptedTransport()}
    async with running(transports=transports, drain_timeout=0.5) as (engine, _):
        lines = [b'{"user": "u%d", "transport": "push", "address": "a%d"}' % (n, n) for n in range(12_000)]
        await engine.endpoints.import_(lines)
        await register(engine, "alice", "desk", binding="other")
        many = await engine.send(HI, "all")

        while not (await engine.status(many.id)).pending_by_reason.get("limiter"):
            await asyncio.sleep(0.01)
        alert = await engine.send(Notification(title="Hi"), "user:alice")

        assert (await alert.wait(60)).counts["accepted"] == 1
        push, other = sorted(engine._settler.states, key=lambda state: state.binding != "push")
        assert all(group.limiter.limit < 500 for group in push.groups.values())
        assert all(group.limiter.limit >= 1000 for group in other.groups.values())


async def test_a_wave_of_certain_deaths_removes_only_the_first_and_raises_an_event() -> None:
    async with running(lambda m, d: Gone("Unregistered")) as (engine, _):
        ids = await register(engine, "alice", *(f"phone-{n}" for n in range(200)))
        receipt = await engine.send(HI, "user:alice")
        status = await receipt.wait(60)

        assert status.counts["gone"] == 200, "the deliveries have ended all the same"
        left = [endpoint async for endpoint in engine.endpoints.list(user="alice")]
        assert len(left) == len(ids) - 49
        while "binding.parked" not in {event.kind async for event in engine.events()}:
            await asyncio.sleep(0.01)
        assert [note.scope for note in await engine.gates()] == ["removals"]

        gone = [e.id async for e in engine.endpoints.list(user="alice", state=EndpointState.GONE)]
        assert await engine.endpoints.restore(gone) == 49

        await engine.resume_binding("push")
        while await engine.gates():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("target", ["user:alice", "topic:news", "all"])
async def test_the_latest_of_a_collapse_key_wins_for_every_endpoint_that_its_target_matches(target: str) -> None:
    held: list[asyncio.Future[Outcome]] = []

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome | asyncio.Future[Outcome]:
        if message.notification.title == "old" and not held:
            held.append(asyncio.get_running_loop().create_future())
            return held[0]
        return ACCEPTED

    transport = ScriptedTransport(answer, capacity=1)
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", "phone-1", "phone-2", "phone-3", tags=["news"])
        await register(engine, "bob", "other-1", "other-2")
        old = await engine.send(
            Notification(title="old", collapse_key="score"), Target.users(["alice", "bob", "nobody"])
        )
        while not held:
            await asyncio.sleep(0.005)

        await engine.send(Notification(title="new", collapse_key="score"), target)
        await asyncio.sleep(0)
        while not any(lease.outdated for d in engine._dispatchers for lease in d.state.leases.values()):
            await asyncio.sleep(0.005)
        held[0].set_result(ACCEPTED)
        status = await old.wait(60)

        replaced = 5 if target == "all" else 3
        assert status.counts["accepted"] == 5 - replaced + 1, "one was in flight"
        assert status.counts["superseded"] == replaced - 1


async def test_a_retry_never_overtakes_the_later_notification() -> None:
    """The older waits in back-off, paused, while the newer is sent and finishes; then its time comes."""
    answers: list[asyncio.Future[Outcome]] = []

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome | asyncio.Future[Outcome]:
        if message.notification.title == "old" and not answers:
            answers.append(asyncio.get_running_loop().create_future())
            return answers[0]
        return ACCEPTED

    async with running(answer) as (engine, transport):
        await register(engine, "alice", "phone", tags=["news"])
        old = await engine.send(Notification(title="old", collapse_key="score"), "user:alice")
        while not answers:
            await asyncio.sleep(0.001)
        pausing = asyncio.create_task(engine.pause(old.id))
        while (await old.status()).state != "paused":
            await asyncio.sleep(0.001)
        answers[0].set_result(Throttled(0.2))
        await pausing
        new = await engine.send(Notification(title="new", collapse_key="score", lane="urgent"), "topic:news")

        await new.wait(60)
        await engine.resume(old.id)
        status = await old.wait(60)

        assert status.counts["superseded"] == 1
        assert [sent.notification for sent in transport.sends] == [old.id, new.id]


async def test_one_alert_does_not_wait_behind_a_million_of_the_same_lane() -> None:
    """An explicit target of many chunks takes turns with what is sent after it."""
    gate = asyncio.Event()

    async def one(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if not gate.is_set():
            await gate.wait()
        return ACCEPTED

    transport = ScriptedTransport(lambda m, d: one(m, d), capacity=4)
    async with running(transports={("default", "push"): transport}) as (engine, _):
        if isinstance(engine.storage, PostgresStorage):
            pytest.skip("12,000 registrations take too long there; that turns are taken is a law of the storage suite")
        lines = [b'{"user": "u%d", "transport": "push", "address": "a%d"}' % (n, n) for n in range(12_000)]
        await engine.endpoints.import_(lines)
        await register(engine, "alice", "phone")
        many = await engine.send(HI, Target.users([f"u{n}" for n in range(12_000)]))
        while transport.in_flight < 4:
            await asyncio.sleep(0.005)
        alert = await engine.send(HI, "user:alice")
        gate.set()
        await alert.wait(60)
        before = next(i for i, sent in enumerate(transport.sends) if sent.notification == alert.id)

        assert many.total == 12_000
        assert before < 9_000, "not behind all of it"
        assert (await many.wait(50)).counts["accepted"] == 12_000


async def test_send_waits_for_room_or_refuses() -> None:
    hold: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    async with running(lambda m, d: hold, backlog=BacklogLimits(deliveries=3)) as (engine, _):
        await register(engine, "alice", "a", "b", "c")
        receipt = await engine.send(HI, "user:alice")
        engine._pressure._known.clear()

        with pytest.raises(Backlogged, match="3 deliveries wait, and the bound is 3"):
            await engine.send(HI, "user:alice")
        hold.set_result(ACCEPTED)
        await receipt.wait(60)


async def test_send_goes_on_when_there_is_room_again() -> None:
    hold: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    limits = BacklogLimits(deliveries=1, wait=30.0)
    async with running(lambda m, d: hold if not hold.done() else ACCEPTED, backlog=limits) as (engine, _):
        await register(engine, "alice", "a")
        first = await engine.send(HI, "user:alice")
        engine._pressure._known.clear()
        waiting = asyncio.create_task(engine.send(HI, "user:alice"))
        await asyncio.sleep(0)
        assert not waiting.done()
        hold.set_result(ACCEPTED)
        await first.wait(60)

        second = await waiting
        assert (await second.wait(60)).counts["accepted"] == 1


async def test_what_was_accepted_before_the_bound_was_passed_is_kept() -> None:
    storage = fresh_storage()
    async with running(storage=storage, backlog=BacklogLimits(bytes=1), policy=FAST, role="submit") as (engine, _):
        await register(engine, "alice", "a")
        accepted = await engine.send(HI, "user:alice")
        for _ in range(3):
            with pytest.raises(Backlogged):
                await engine.send(HI, "user:alice")

        assert (await engine.status(accepted.id)).counts["pending"] == 1
