"""Many groups: what is kept as sums, which groups a checkpoint looks at, and when idle ones are let go."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rig import register, running

from fanout.core.states import DeliveryState
from fanout.engine import Engine
from fanout.engine.binding_state import BindingState
from fanout.engine.lease import Lease
from fanout.plugin import Notification, Outcome
from fanout.testing.scripted import ScriptedTransport

# What is stored, and how, does not depend on how groups are kept.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["memory"], indirect=True)]


class Looked(ScriptedTransport):
    """Counts how often it is asked for the capacity of each group."""

    def __init__(self) -> None:
        super().__init__(record=False)
        self.looks: Counter[str] = Counter()

    def capacity(self, group: str) -> int:
        self.looks[group] += 1
        return super().capacity(group)


def state_of(engine: Engine) -> BindingState:
    return engine._settler.states[0]


def over(transport: ScriptedTransport) -> Any:
    return running(transports={("default", "push"): transport})


async def test_a_checkpoint_looks_only_at_groups_that_had_work_or_answers() -> None:
    transport = Looked()
    async with over(transport) as (engine, _):
        for host in range(50):
            await register(engine, f"user-{host}", f"host-{host}/phone")
        receipt = await engine.send(Notification(title="t"), "all")
        assert (await receipt.wait(60)).counts["accepted"] == 50
        state = state_of(engine)
        assert len(state.groups) == 50
        state.tick(engine._clock.now())
        transport.looks.clear()
        state.tick(engine._clock.now())
        assert not transport.looks
        for group in state.groups.values():
            group.adjusted_at = 0.0  # long ago
        assert (await (await engine.send(Notification(title="t"), "user:user-7")).wait(60)).counts["accepted"] == 1
        assert set(transport.looks) == {"host-7"}


async def test_sums_are_what_a_look_at_all_groups_would_find_and_idle_groups_are_let_go() -> None:
    async with over(Looked()) as (engine, _):
        for host in range(20):
            await register(engine, f"user-{host}", f"host-{host}/phone", f"host-{host}/tablet")
        for _ in range(3):
            await (await engine.send(Notification(title="t"), "all")).wait(60)
        state = state_of(engine)
        now = engine._clock.now()
        state.tick(now)
        assert [state.queued(lane) for lane in range(3)] == [0, 0, 0]
        assert state.limit == sum(group.limit for group in state.groups.values()) > 0
        gated = state.groups["host-3"].gate
        gated.close(now, engine._context.rng, reason="down", after=3600.0)
        state.tick(now + 31)
        assert list(state.groups) == ["host-3"], "a gate that is not open is remembered"
        assert state.limit == state.groups["host-3"].limit
        gated.refuted()
        state.tick(now + 63)
        assert not state.groups
        assert state.limit == 0


async def test_a_group_that_rested_is_not_taken_for_one_that_hangs() -> None:
    async with over(Looked()) as (engine, transport):
        await register(engine, "alice", "host/phone")
        await (await engine.send(Notification(title="t"), "all")).wait(60)
        state = state_of(engine)
        state.tick(engine._clock.now())
        group = state.groups["host"]
        group.moved_at -= 1000.0  # so long ago that anything was seen
        state._busy[group] = None
        group.active = 1
        group.queues[1].size = 5
        assert state.waiting(1) == ([5], 0)
        group.active = group.queues[1].size = 0


class Acting(Looked):
    """Does something once, in its first send: 50 groups have work then, and 49 of them wait for their turn."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act: Callable[[], None] | None = act

    async def send(self, message: Any, delivery: Any) -> Outcome:
        if self.act is not None:
            act, self.act = self.act, None
            act()
        return await super().send(message, delivery)


class Still:
    """A clock that stands so many seconds after `at` (UNIX seconds)."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, at: float, later: float) -> None:
        self.at = at
        self.now = lambda: at + later


def taken_back(state: BindingState) -> tuple[Lease, list[int]]:
    """The deliveries that wait for their turn, as if they had not been handed to their groups."""
    (lease,) = state.leases.values()
    positions = sorted(position for group in state.groups.values() for _, position in group.drain())
    lease.give_back(len(positions))
    state.sends._line.clear()
    for group in state.groups.values():
        group.in_line = False
    return lease, positions


@asynccontextmanager
async def fifty(act: Callable[[BindingState, Acting], None]) -> AsyncIterator[BindingState]:
    """An engine that has sent to 50 hosts, with that done in the first send."""
    transport = Acting(lambda: act(state, transport))
    async with over(transport) as (engine, _):
        for host in range(50):
            await register(engine, f"user-{host}", f"host-{host}/phone")
        state = state_of(engine)
        await (await engine.send(Notification(title="t"), "all")).wait(60)
        yield state


async def test_a_checkpoint_asks_no_group_whose_work_waits_for_its_turn() -> None:
    looks: list[int] = []

    def act(state: BindingState, transport: Acting) -> None:
        assert sum(group.queued > 0 for group in state.groups.values()) == 49
        transport.looks.clear()
        state.tick(state.clock.now())
        looks.append(transport.looks.total())

    async with fifty(act) as state:
        assert looks in ([0], [1])  # of the one that is under way
        state.tick(state.clock.now())
        assert not state._busy


async def test_a_group_whose_work_went_before_its_turn_came_rests() -> None:
    def act(state: BindingState, transport: Acting) -> None:
        for group in state.groups.values():
            for lease, position in group.drain():
                lease.finish(position, DeliveryState.CANCELLED, "", attempted=False)
        state.tick(state.clock.now())

    async with fifty(act) as state:
        state.tick(state.clock.now())
        assert not state._busy
        assert len(state._resting) == 50


async def test_a_group_that_rests_is_asked_for_its_capacity_once_a_checkpoint() -> None:
    looks: list[int] = []

    def act(state: BindingState, transport: Acting) -> None:
        lease, positions = taken_back(state)
        clock = state.clock
        for later in (0.0, 0.04, 0.06, -1.0):
            state.clock = Still(clock.now(), later)
            for group in state.groups.values():
                group.adjusted_at = state.clock.at
            transport.looks.clear()
            state.enqueue(lease, positions)
            looks.append(transport.looks.total())
            taken_back(state)
        state.clock = clock
        state.enqueue(lease, positions)

    async with fifty(act):
        assert looks == [0, 0, 49, 49]


async def test_a_chunk_for_a_closed_binding_is_put_down_by_one_look_at_its_groups() -> None:
    looks: list[Any] = []

    def act(state: BindingState, transport: Acting) -> None:
        lease, positions = taken_back(state)
        park_behind = state.gates.park_behind

        def looked(group: Any = None, **named: bool) -> None:
            looks.append(group)
            park_behind(group, **named)

        state.gates.park_behind = looked  # type: ignore[method-assign]
        state.gate.close(state.clock.now(), random.Random(1), reason="down", after=0.01)
        state.enqueue(lease, positions)
        assert state.queued(1) == 0

    async with fifty(act):
        assert looks == [None]


async def test_no_group_is_looked_at_for_room_while_half_of_the_window_is_free() -> None:
    async with over(Looked()) as (engine, _):
        for host in range(30):  # of a window of 64
            await register(engine, f"user-{host}", f"host-{host}/phone")
        state = state_of(engine)
        looks: list[int] = []
        waiting = state.waiting

        def looked(lane: int) -> tuple[list[int], int]:
            looks.append(lane)
            return waiting(lane)

        state.waiting = looked  # type: ignore[method-assign]
        for _ in range(3):
            await (await engine.send(Notification(title="t"), "all")).wait(60)
        assert not looks
