"""The tasks of single sends: as many as are under way, used again by every group and binding, and ended when they are
needed no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from rig import FAST, register, running

from fanout.engine import Engine
from fanout.engine.send_tasks import SendTasks
from fanout.plugin import ACCEPTED, Delivery, Message, Notification, Outcome
from fanout.testing.scripted import ScriptedTransport

# What is stored, and how, does not depend on how deliveries are begun.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["memory"], indirect=True)]

NOTE = Notification(title="t")


class Held(ScriptedTransport):
    """Answers a send when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[Outcome]] = []
        self.tasks: set[asyncio.Task[Any] | None] = set()

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        self.tasks.add(asyncio.current_task())
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            future.set_result(ACCEPTED)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def tasks_of(engine: Engine) -> SendTasks:
    return engine._send_tasks


async def devices(engine: Engine, count: int, binding: str, hosts: int = 1) -> None:
    await register(engine, binding, *(f"h{n % hosts}/d{n:03}" for n in range(count)), binding=binding)


def two() -> dict[tuple[str, str], Any]:
    return {("default", "one"): Held(), ("default", "two"): Held()}


async def test_there_are_as_many_as_sends_under_way_and_others_use_them_again() -> None:
    made = two()
    one, other = made.values()
    async with running(transports=made) as (engine, _):
        await devices(engine, 60, "one", hosts=3)
        await devices(engine, 60, "two", hosts=3)
        before = len(asyncio.all_tasks())
        for transport, user in ((one, "user:one"), (other, "user:two"), (one, "user:one")):
            receipt = await engine.send(NOTE, user)
            await until(lambda transport=transport: len(transport.waiting) == 60)
            assert 60 <= len(tasks_of(engine)) + sum(len(state.sends._under_way) for state in engine._states) <= 64
            transport.answer()
            await receipt.wait(60)
            await until(lambda: len(tasks_of(engine)) >= 60)
        assert 60 <= len(one.tasks | other.tasks) <= 64
        tasks = tasks_of(engine)
        tasks.trim()
        tasks.trim()  # none of them had work since
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert len(tasks) == 0


async def test_a_transport_that_answers_at_once_needs_few() -> None:
    async with running() as (engine, _):
        await register(engine, "alice", *(f"d{n:03}" for n in range(600)))
        receipt = await engine.send(NOTE, "user:alice")
        assert (await receipt.wait(60)).counts["accepted"] == 600
        await until(lambda: not engine._states[0].sends._under_way)
        assert len(tasks_of(engine)) <= 300


async def test_a_parked_task_keeps_nothing_of_its_work_alive() -> None:
    made = two()
    async with running(transports=made, policy=FAST) as (engine, transport):
        assert isinstance(transport, Held)
        await devices(engine, 3, "one")
        receipt = await engine.send(NOTE, "user:one")
        await until(lambda: len(transport.waiting) == 3)
        transport.answer()
        await receipt.wait(60)
        await until(lambda: len(tasks_of(engine)) >= 3)
        sends = engine._states[0].sends
        assert (sends._count, sends._coming, len(sends._line), len(sends._under_way)) == (0, 0, 0, 0)
        for parked in tasks_of(engine)._idle:
            assert not parked.done()


class Stubborn(Held):
    """Goes on when it is cancelled: `returns` it then answers, or waits still."""

    def __init__(self, *, returns: bool) -> None:
        super().__init__()
        self.returns = returns
        self.first = True
        self.release = asyncio.Event()

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        if not self.first:
            return ACCEPTED
        self.first = False
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if not self.returns:
                await self.release.wait()
        return ACCEPTED


@pytest.mark.parametrize("returns", [True, False], ids=["answers", "goes on"])
async def test_a_send_that_ignores_its_cancellation_costs_its_delivery_alone(returns: bool) -> None:
    made = Stubborn(returns=returns)
    async with running(transports={("default", "push"): made}) as (engine, _):
        await register(engine, "alice", "d1", "d2")
        receipt = await engine.send(NOTE, "user:alice")
        (state,) = engine._states
        await until(lambda: not made.first)
        ahead = state.clock.monotonic() + 100
        state.watch(ahead)
        if not returns:
            await until(lambda: any(attempt.given_up for attempt in state.sends._under_way))
            await asyncio.sleep(0)
            state.watch(ahead)
        status = await receipt.wait(60)
        assert status.counts["accepted"] == 2
        assert state.faults == (1 if returns else 2)
        assert state.under_way == 0
        made.release.set()
        await until(lambda: state.pump.late == 1)
        await until(lambda: not state.sends._under_way)
        again = await engine.send(NOTE, "user:alice")
        assert (await again.wait(60)).counts["accepted"] == 2, "its task can be used again"


async def test_a_cancellation_that_is_the_plugins_own_ends_no_sender() -> None:
    def script(message: Message, delivery: Delivery) -> Any:
        if delivery.attempt > 1:
            return ACCEPTED
        shared: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        shared.cancel()
        return shared

    async with running(script) as (engine, _):
        await register(engine, "alice", "d1", "d2", "d3")
        receipt = await engine.send(NOTE, "user:alice")
        assert (await receipt.wait(60)).counts["accepted"] == 3
        assert engine._states[0].faults == 3
        assert engine.fault is None


async def test_a_group_that_hangs_keeps_no_other_of_its_binding_from_sending() -> None:
    hung: list[asyncio.Future[Outcome]] = []

    def script(message: Message, delivery: Delivery) -> Any:
        if not delivery.address.startswith("h0/"):
            return ACCEPTED
        hung.append(asyncio.get_running_loop().create_future())
        return hung[-1]

    async with running(script) as (engine, transport):
        await devices(engine, 100, "push", hosts=4)
        receipt = await engine.send(NOTE, "user:push")
        await until(lambda: transport.calls == 100)
        assert len(hung) == 25
        for future in hung:
            future.set_result(ACCEPTED)
        assert (await receipt.wait(60)).counts["accepted"] == 100
