"""What is due later is sent when it is due: nothing here is found by a look that nobody asked for (see
`conftest.told_or_asleep`)."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
from rig import FAST, fresh_storage, opened_again, register, running

from fanout.core.delivery import Delivery
from fanout.core.gate import Gate, GateState
from fanout.core.model import Notification, Target
from fanout.core.policy import Policy
from fanout.engine.group import Group
from fanout.plugin import ACCEPTED, Misconfigured, Outcome, Rejected, Scope
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")
SOON = 0.2


async def idle(engine: Any) -> None:
    """Until every dispatcher sleeps."""
    async with asyncio.timeout(60):
        while not all(state.signal._waiters for state in engine._settler.states):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("ttl", [3600.0, 20.0])
async def test_an_idle_process_sends_a_schedule_when_it_is_due(ttl: float) -> None:
    """The TTL may be shorter than any look that a dispatcher takes by itself."""
    pair = {("default", name): ScriptedTransport() for name in ("push", "web")}
    async with running(transports=pair) as (engine, _):
        await register(engine, "alice", "phone")
        await register(engine, "alice", "browser", binding="web")
        await (await engine.send(HI, "user:alice")).wait(60)
        await idle(engine)
        at = time.time() + SOON

        status = await (await engine.send(Notification(title="x", ttl=ttl), "user:alice", at=at)).wait(60)

        assert status.counts["accepted"] == 2, status
        assert status.finished_at is not None
        assert status.finished_at >= at


async def test_the_earlier_of_two_schedules_is_not_kept_for_the_later() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        later = await engine.send(HI, "user:alice", at=time.time() + 3000)
        await idle(engine)
        sooner = await engine.send(HI, "user:alice", at=time.time() + SOON)

        assert (await sooner.wait(60)).counts["accepted"] == 1
        assert (await later.status()).state == "scheduled"


async def test_a_worker_is_told_of_what_another_process_scheduled() -> None:
    storage = fresh_storage()
    async with running(storage=storage, role="work") as (worker, transport):
        await register(worker, "alice", "phone")
        await idle(worker)
        if not storage.shared:
            pytest.skip("memory: is one process's own")
        async with running(storage=opened_again(storage), role="submit", rng=random.Random(2)) as (submitter, _):
            receipt = await submitter.send(HI, "user:alice", at=time.time() + SOON)

            assert (await receipt.wait(60)).counts["accepted"] == 1


async def test_a_full_window_keeps_no_schedule_waiting() -> None:
    """All connections are busy with a broadcast: an urgent schedule is expanded, and begun as soon as one has room."""
    begun, go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def one_by_one(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        begun.release()
        await go_on.acquire()
        return ACCEPTED

    async with running(one_by_one) as (engine, transport):
        transport.capacities[""] = 1
        for n in range(30):
            await register(engine, f"u{n}", f"d{n}")
        dispatcher = engine._dispatchers[0]
        dispatcher._room = lambda lane: 0 if lane == 2 and dispatcher.state.queued(2) else 4000  # type: ignore[method-assign]
        for _ in range(2):
            await engine.send(Notification(title="sale", lane="bulk"), "all")
        await begun.acquire()
        urgent = await engine.send(
            Notification(title="code", lane="urgent", ttl=30.0), "user:u7", at=time.time() + SOON
        )
        async with asyncio.timeout(60):
            while (await urgent.status()).total is None:
                await asyncio.sleep(0.01)

        assert dispatcher.state.queued(2), "nothing has made room meanwhile"
        for _ in range(100):
            go_on.release()
        assert (await urgent.wait(60)).counts["accepted"] == 1


async def test_a_stream_of_sends_keeps_no_schedule_waiting() -> None:
    """Each send is leased without asking storage what else is due: it is asked all the same."""
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(Notification(title="code", lane="bulk"), "user:alice", at=time.time() + SOON)
        async with asyncio.timeout(120):
            while (await receipt.status()).total is None:
                await asyncio.gather(*[engine.send(HI, "user:alice") for _ in range(20)])
        assert (await receipt.wait(60)).counts["accepted"] == 1


@pytest.mark.parametrize("verdict", [ACCEPTED, Rejected("PayloadTooLarge")])
async def test_a_gate_wakes_who_waits_for_its_probe(verdict: Outcome) -> None:
    """Three groups behind one closed gate, and one probe at a time: whoever is next is told, and looks at no clock."""
    closed = True

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        nonlocal closed
        if closed:
            closed = False
            return Misconfigured("InvalidProviderToken", Scope.BINDING, named=False)
        return ACCEPTED if delivery.attempt > 1 else verdict

    # A minute between two looks, were they looks.
    policy = Policy(backoff_base=60.0, backoff_throttled=0.01, probe=0.05, request_timeout=60.0)
    async with running(answer, policy=policy) as (engine, transport):
        for host in ("a", "b", "c"):
            await register(engine, "alice", *[f"{host}/{n}" for n in range(3)])

        status = await (await engine.send(HI, "user:alice")).wait(60)

        assert status.counts["pending"] == 0


async def test_what_expires_behind_a_closed_gate_says_so() -> None:
    async def refuse(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Misconfigured("InvalidProviderToken", Scope.BINDING, named=False)

    async with running(refuse, policy=Policy(probe=600.0, request_timeout=2.0)) as (engine, transport):
        await register(engine, "alice", "phone")
        first = await engine.send(HI, "user:alice")
        async with asyncio.timeout(60):
            while engine._settler.states[0].gate.is_open:
                await asyncio.sleep(0.01)
        status = await (await engine.send(Notification(title="x", ttl=1.0), Target.all())).wait(60)

        assert (status.state, status.total) == ("done", 0)
        assert {state: dict(each) for state, each in status.reasons.items()} == {
            "expired": {"before it was expanded": 0}
        }
        assert engine._settler.tally.unexpanded == {"default": 1}
        ends = [event async for event in engine.events() if event.kind == "notification.finished"]
        assert [event.data["notification"] for event in ends] == [status.id]
        await first.cancel()


def test_a_probe_that_is_out_is_waited_for_until_it_is_lost() -> None:
    gate = Gate(FAST)
    gate.close(0.0, random.Random(1), reason="x", after=1.0)
    assert gate.opens_at(0.5) == 1.0
    assert gate.admits(1.0)
    assert gate.state is GateState.PROBING
    assert gate.opens_at(1.0) == 1.0 + 2 * FAST.request_timeout, "no look at each back-off: whoever frees it says so"
    told: list[str] = []
    group = Group("g", FAST, gate, lambda: told.append("may probe"))
    group.no_verdict()
    assert told == ["may probe"]
    assert gate.opens_at(1.0) == 1.0
    gate.reset(1.0)
    group.no_verdict()
    assert told == ["may probe"], "a gate that is closed lets no probe go, whoever ends"
