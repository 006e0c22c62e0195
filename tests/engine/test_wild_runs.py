"""Whatever a transport does with a run, and whatever it answers, costs no other delivery and ends no engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from runner import Runner, broadcast, over, state_of, until

from fanout.plugin import (
    ACCEPTED,
    Accepted,
    Address,
    Deferred,
    Delivery,
    Gone,
    Message,
    Moved,
    Run,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.scripted import ScriptedTransport

# What is stored, and how, does not depend on how deliveries are begun.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["memory"], indirect=True)]


class Wild(Runner):
    """Does what `how` says with the first run of several, and answers all others as they should be."""

    def __init__(self, how: Callable[[Wild, Run], Any]) -> None:
        super().__init__()
        self.how = how

    def begin(self, run: Run) -> Sequence[int]:
        if len(self.runs) > 1:
            return super().begin(run)
        nothing: Sequence[int] = self.how(self, run)
        return nothing


def soon(call: Callable[..., object], *arguments: object) -> None:
    asyncio.get_running_loop().call_soon(call, *arguments)


def twice(wild: Wild, run: Run) -> Any:
    soon(wild.answer, run)
    soon(wild.answer, run)
    return []


def beyond(wild: Wild, run: Run) -> Any:
    soon(run.accept, iter([0, -1, 99, "x", None]))
    soon(run.answer, 99, ACCEPTED)
    soon(run.answer, -1, ACCEPTED)
    soon(run.answer, [], ACCEPTED)
    soon(run.answer, 1.0, ACCEPTED)
    soon(run.accept, range(1, 10))
    return ()


def returned_and_answered(wild: Wild, run: Run) -> Any:
    soon(wild.answer, run)
    return [0, 9]


def yielded_and_answered(wild: Wild, run: Run) -> Any:
    for index in range(10):
        yield index
        run.accept([index])


def answered_and_returned(wild: Wild, run: Run) -> Any:
    wild.answer(run)
    return range(10)


def elsewhere(wild: Wild, run: Run) -> Any:
    asyncio.get_running_loop().run_in_executor(None, run.accept, [*range(5)])
    asyncio.get_running_loop().run_in_executor(None, lambda: [run.answer(n, ACCEPTED) for n in range(5, 10)])
    return []


def released(wild: Wild, run: Run) -> Any:
    run.release()
    wild.answer(run)
    return []


def cancelled(wild: Wild, run: Run) -> Any:
    raise asyncio.CancelledError


def floating(wild: Wild, run: Run) -> Any:
    """Numbers that are equal to indices, and are none."""
    halves: list[Any] = [0.0, 1.0]
    run.accept(halves)
    asyncio.get_running_loop().call_soon(run.accept, [*map(float, range(10))])
    return [2.0, 3.0]


WILD = {
    twice: (0, 10),
    beyond: (0, 8),
    returned_and_answered: (0, 2),
    yielded_and_answered: (0, 0),
    answered_and_returned: (0, 0),
    elsewhere: (0, 0),
    released: (0, 0),
    cancelled: (1, 0),
    floating: (0, 4),
}


@pytest.mark.parametrize(("how", "faults", "late"), [(how, *counts) for how, counts in WILD.items()])
async def test_whatever_a_transport_does_with_a_run_each_delivery_ends_once(
    how: Callable[[Wild, Run], Any], faults: int, late: int
) -> None:
    async with over(Wild(how)) as (engine, transport):
        receipt = await broadcast(engine, 10)
        assert (await receipt.wait(60)).counts["accepted"] == 10
        state = state_of(engine)
        await until(lambda: state.pump.late == late)
        assert (state.faults, state.under_way, engine.fault) == (faults, 0, None)
        for run in transport.runs:  # type: ignore[attr-defined]
            assert run.ended


RUBBISH: list[Any] = [
    None, "accepted", Accepted, Unavailable("unknown", "group"), Gone("dead", "yesterday"),  # type: ignore[arg-type]
    Throttled("soon"), Throttled(1, Scope), Deferred("later", []), Moved("elsewhere"), Unavailable("no", cause=7),  # type: ignore[arg-type]
    Deferred("later", float("nan")), Throttled(10**400), Gone("dead", -(10**400)), Moved(Address(7)), Moved(Address("a", group=None)),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("way", ["start", "send"])
async def test_what_is_no_outcome_costs_its_delivery_alone_an_attempt(way: str) -> None:
    def script(message: Message, delivery: Delivery) -> Any:
        return RUBBISH[delivery.endpoint % len(RUBBISH)] if delivery.attempt == 1 else ACCEPTED

    class Vague(Runner):
        def answer(self, run: Run, indices: Sequence[int] | None = None) -> None:
            for index in range(len(run)):
                run.answer(index, script(run.message, run.delivery(index)))

    runner = Vague() if way == "start" else ScriptedTransport(script)
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, len(RUBBISH))
        assert (await receipt.wait(60)).counts["accepted"] == len(RUBBISH)
        assert engine.fault is None
        none_is_by_send = way == "start"
        assert state_of(engine).faults == len(RUBBISH) - none_is_by_send


@pytest.mark.parametrize("says", [ValueError("no number"), None, float("nan"), float("inf"), "many"])
async def test_a_capacity_that_is_no_number_stops_no_engine(says: Any) -> None:
    class Incapable(Runner):
        def capacity(self, group: str) -> int:
            if self.calls or self.runs:
                return 10
            if isinstance(says, Exception):
                raise says
            return says  # type: ignore[no-any-return]

    runner = Incapable()
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 20)
        assert (await receipt.wait(60)).counts["accepted"] == 20
        assert engine.fault is None
