"""After `pause`, `cancel` or `pause_binding` has returned nothing more is begun, wherever a delivery was meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from rig import fresh_storage, opened_again, register, running

from fanout.core.policy import Policy
from fanout.core.settlement import Park
from fanout.core.states import Waiting
from fanout.engine import Engine
from fanout.plugin import ACCEPTED, Delivery, Notification, Outcome, Run, Scope, Unavailable
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")
STOPS = ("pause", "cancel")


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def slowly(storage: Any, name: str, go_on: asyncio.Event, *, after: bool = False) -> list[Any]:
    """An operation of storage that waits before it is done (or before it says so), once; what it was asked, or
    answered."""
    calls: list[Any] = []
    own: Callable[..., Awaitable[Any]] = getattr(storage, name)

    async def slow(*arguments: Any, **named: Any) -> Any:
        answer = await own(*arguments, **named) if after else None
        if not calls and (answer or not after):
            calls.append(answer)
            await go_on.wait()
        return answer if after else await own(*arguments, **named)

    setattr(storage, name, slow)
    return calls


@pytest.mark.parametrize("how", STOPS)
async def test_what_is_leased_again_before_the_stop_is_stored_is_not_sent(how: str) -> None:
    held: list[asyncio.Future[Outcome]] = []

    def answer(message: ScriptedMessage, delivery: Delivery) -> asyncio.Future[Outcome]:
        held.append(asyncio.get_running_loop().create_future())
        return held[-1]

    storage, stored = fresh_storage(), asyncio.Event()
    transport = ScriptedTransport(answer, capacity=5)
    async with running(storage=storage, transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(20)))
        receipt = await engine.send(HI, "user:alice")
        await until(lambda: len(held) == 5)
        calls = slowly(storage, how, stored)
        stopping = asyncio.create_task(getattr(engine, how)(receipt.id))
        await until(lambda: calls)
        asked = engine._settler.states[0].asked
        for each in held:
            each.set_result(ACCEPTED)
        # What was put down is leased anew, for storage knows of nothing; what was cancelled has ended.
        await until(lambda: engine._settler.states[0].asked > asked + 3 or not engine._settler.states[0].leases)
        stored.set()
        status = await stopping
        assert transport.calls == status.counts["accepted"] == 5
        assert status.state == ("paused" if how == "pause" else "done")


@pytest.mark.parametrize("how", STOPS)
async def test_what_another_process_stops_while_it_is_leased_here_is_not_sent(how: str) -> None:
    storage, go_on = fresh_storage(), asyncio.Event()
    leased = slowly(storage, "lease", go_on, after=True)
    async with running(storage=storage) as (worker, transport):
        await register(worker, "alice", *(f"phone-{n}" for n in range(20)))
        looks: list[Any] = []
        look = worker._upkeep._look_at_others

        async def looking() -> None:
            await look()
            looks.append(None)

        worker._upkeep._look_at_others = looking  # type: ignore[method-assign]
        async with running(storage=opened_again(storage), role="submit") as (other, _):
            receipt = await other.send(HI, "user:alice")
            await until(lambda: leased)
            stopping = asyncio.create_task(getattr(other, how)(receipt.id))
            while (await other.status(receipt.id)).state not in ("paused", "cancelling", "cancelled", "done"):
                await asyncio.sleep(0.005)
            seen = len(looks)
            worker._upkeep.look.set()
            await until(lambda: len(looks) > seen)
            go_on.set()
            await stopping
        assert not transport.sends


class Held(ScriptedTransport):
    """Answers when the test says so; `runs`: it starts deliveries in runs, of which each that is begun again goes by
    `send`."""

    def __init__(self, *, runs: bool) -> None:
        super().__init__(self.answer_later, capacity=5)
        self.begun = 0
        self.waiting: list[Callable[[Outcome | None], None]] = []
        self.open = False
        if runs:
            self.start = self.start_run

    def answer_later(self, message: ScriptedMessage, delivery: Delivery) -> Outcome | Awaitable[Outcome]:
        self.begun += 1
        if self.open:
            return ACCEPTED
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append(lambda outcome: future.done() or future.set_result(outcome))
        return future

    def start_run(self, run: Run) -> Sequence[int]:
        self.begun += len(run)
        for index in range(len(run)):
            if self.open:
                run.answer(index, ACCEPTED)
            else:
                self.waiting.append(lambda outcome, index=index: run.answer(index, outcome))  # type: ignore[misc]
        return ()

    def release(self, outcome: Outcome | None) -> None:
        self.open = True
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            answer(outcome)


NOT_REACHED = Unavailable("no", Scope.ENDPOINT, "the connection was lost before")
MUST_GO_AGAIN = pytest.mark.parametrize(
    ("runs", "outcome"),
    [(True, None), (True, NOT_REACHED), (False, NOT_REACHED)],
    ids=["handed_to_send", "free_retry_in_runs", "free_retry"],
)
MEMORY = pytest.mark.parametrize("backend", ["memory"], indirect=True)  # what is stored, and how, is tested above


async def turns() -> None:
    """What is about to be begun is, in so many turns of the loop."""
    for _ in range(20):
        await asyncio.sleep(0)


@MUST_GO_AGAIN
@MEMORY
@pytest.mark.parametrize("how", [*STOPS, "pause_binding"])
async def test_what_must_go_again_is_put_down_where_it_was_stopped(
    how: str, runs: bool, outcome: Outcome | None
) -> None:
    transport = Held(runs=runs)
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(9)))
        receipt = await engine.send(HI, "user:alice")
        await until(lambda: len(transport.waiting) == 5)
        work = engine._settler.states[0]
        leases = list(work.leases.values())
        stop: str = "push" if how == "pause_binding" else receipt.id
        stopping = asyncio.create_task(getattr(engine, how)(stop))
        await until(lambda: work.paused or leases[0].prepared.stopped)  # type: ignore[attr-defined]
        transport.release(outcome)
        async with asyncio.timeout(120):
            await stopping
        assert transport.begun == 5
        status = await receipt.status()
        counted = {"cancelled": 9} if how == "cancel" else {"paused": 9}
        assert status.pending_by_reason == counted or status.counts.get("cancelled") == 9
        if how == "pause_binding":
            await engine.resume_binding("push")
        elif how == "pause":
            await engine.resume(receipt.id)
        else:
            return
        assert (await receipt.wait(60)).counts["accepted"] == 9


@MUST_GO_AGAIN
@MEMORY
async def test_what_must_go_again_waits_while_results_cannot_be_stored(runs: bool, outcome: Outcome | None) -> None:
    transport = Held(runs=runs)
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(9)))
        receipt = await engine.send(HI, "user:alice")
        await until(lambda: len(transport.waiting) == 5)
        settler = engine._settler
        settler._hold("Sending stops, as it does where storage does not answer.")
        transport.release(outcome)
        await turns()
        assert transport.begun == 5
        settler.stuck = False
        for work in settler.states:
            work.resume()
        assert (await receipt.wait(60)).counts["accepted"] == 9


@MUST_GO_AGAIN
@MEMORY
async def test_what_must_go_again_is_left_to_others_by_an_engine_that_leaves(
    runs: bool, outcome: Outcome | None
) -> None:
    storage, transport = fresh_storage(), Held(runs=runs)

    def leaving(engine: Engine) -> None:
        work = engine._states[0]
        own = work.surrender

        def surrender() -> None:
            own()
            transport.release(outcome)

        work.surrender = surrender  # type: ignore[method-assign]

    async with running(storage=storage, transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(9)))
        await engine.send(HI, "user:alice")
        await until(lambda: len(transport.waiting) == 5)
        leaving(engine)
    assert transport.begun == 5
    async with running(storage=opened_again(storage), role="submit") as (engine, _):
        assert await engine.storage.outstanding() == {"ready": 9}


@MUST_GO_AGAIN
@MEMORY
async def test_what_must_go_again_waits_behind_a_gate_that_has_closed(runs: bool, outcome: Outcome | None) -> None:
    transport = Held(runs=runs)
    slow = Policy(backoff_base=30.0, probe=30.0, request_timeout=30.0)
    async with running(transports={("default", "push"): transport}, policy=slow) as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(9)))
        receipt = await engine.send(HI, "user:alice")
        await until(lambda: len(transport.waiting) == 5)
        work = engine._states[0]
        [group] = work.groups.values()
        work.gates.shut(Park(Scope.BINDING, 60.0, "too many", Waiting.QUOTA), group, "", work.clock.now())
        transport.release(outcome)
        async with asyncio.timeout(120):
            await until(lambda: not work.leases)
        assert transport.begun == 5
        await engine.resume_binding("push")
        assert (await receipt.wait(60)).counts["accepted"] == 9
