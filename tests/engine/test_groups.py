"""Many groups: what is kept as sums, which groups a checkpoint looks at, and when idle ones are let go."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from rig import register, running

from fanout.engine import Engine
from fanout.engine.binding_state import BindingState
from fanout.plugin import Notification
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
        (state._group("host", 0.0)).active = 1
        group.queues[1].size = 5
        assert state.waiting(1) == ([5], 0)
        group.active = group.queues[1].size = 0
