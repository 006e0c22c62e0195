"""The pump: deliveries go in runs, each delivery of a run ends once, and whatever a transport does with a run costs no
other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from runner import Runner, broadcast, over, state_of, until

from fanout.engine.observing import observe
from fanout.plugin import (
    ACCEPTED,
    Delivery,
    Message,
    Outcome,
    Policy,
    Rejected,
    Run,
    Scope,
    Unavailable,
)

# What is stored, and how, does not depend on how deliveries are begun.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["memory"], indirect=True)]

SLOW = Policy(backoff_base=30.0, probe=30.0, request_timeout=30.0)


async def test_a_broadcast_goes_in_runs_and_without_a_task_for_each() -> None:
    runner = Runner()
    runner.hold = True
    async with over(runner) as (engine, _):
        tasks = len(asyncio.all_tasks())
        receipt = await broadcast(engine, 100)
        await until(lambda: sum(map(len, runner.runs)) == 100)
        assert len(asyncio.all_tasks()) <= tasks
        assert [len(run) for run in runner.runs] == [32, 32, 32, 4]
        assert state_of(engine).under_way == 100
        sent = [row for run in runner.runs for row in run.rows]
        assert len({row.id for row in sent}) == 100
        assert {(run.attempt, run.fresh, run.group) for run in runner.runs} == {(1, False, "")}
        for run in runner.runs:
            runner.answer(run)
        assert (await receipt.wait(60)).counts == {"accepted": 100, "pending": 0} | (await receipt.wait(1)).counts
        assert not runner.single
        assert state_of(engine).under_way == 0
        assert not any(group.runs for group in state_of(engine).groups.values())


async def test_no_more_are_started_than_there_is_room_for() -> None:
    runner = Runner(capacity=40)
    runner.hold = True
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 100)
        await until(lambda: sum(map(len, runner.runs)) == 40)
        runner.answer(runner.runs[0], range(5))
        await until(lambda: sum(map(len, runner.runs)) == 45)
        runner.hold = False
        for run in runner.runs:
            runner.answer(run, run.pending())
        assert (await receipt.wait(60)).counts["accepted"] == 100


async def test_what_a_transport_cannot_start_goes_by_send() -> None:
    class Half(Runner):
        def begin(self, run: Run) -> Sequence[int]:
            asyncio.get_running_loop().call_soon(self.answer, run, range(0, len(run), 2))
            return range(1, len(run), 2)

    runner = Half()
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 50)
        assert (await receipt.wait(60)).counts["accepted"] == 50
        assert sorted(runner.single) == sorted(row.id for run in runner.runs for row in run.rows[1::2])
        await until(lambda: not state_of(engine).sends._under_way)
        assert state_of(engine).pump.late == 0


async def test_what_a_transport_must_send_again_goes_by_send() -> None:
    class Refused(Runner):
        def begin(self, run: Run) -> Sequence[int]:
            for index in range(0, len(run), 5):
                run.answer(index, None)
            asyncio.get_running_loop().call_soon(lambda: [run.answer(index, None) for index in run.pending()[:4]])
            asyncio.get_running_loop().call_soon(lambda: self.answer(run, run.pending()))
            return []

    runner = Refused()
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 40)
        assert (await receipt.wait(60)).counts["accepted"] == 40
        assert len(runner.single) == len(set(runner.single)) == 7 + 4 + 2 + 4
        assert not any(group.runs for group in state_of(engine).groups.values())


async def test_an_answer_during_start_is_settled_behind_it() -> None:
    class Hasty(Runner):
        left: list[int]

        def begin(self, run: Run) -> Sequence[int]:
            lease = state_of(engine).leases[min(state_of(engine).leases)]
            before = lease.left
            self.answer(run)
            self.left = [before - lease.left]
            return []

    runner = Hasty(lambda message, delivery: Rejected("no") if delivery.endpoint % 2 else ACCEPTED)
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 10)
        counts = (await receipt.wait(60)).counts
        assert counts["accepted"] + counts["rejected"] == 10
        assert runner.left == [0]


async def test_a_start_that_raises_costs_what_it_had_not_answered() -> None:
    class Broken(Runner):
        broken = True

        def begin(self, run: Run) -> Sequence[int]:
            if not self.broken:
                return super().begin(run)
            self.broken = False
            self.answer(run, range(3))
            raise ValueError("a plugin's fault")

    runner = Broken()
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 10)
        assert (await receipt.wait(60)).counts["accepted"] == 10
        assert state_of(engine).faults == 1
        retried = [row.id for run in runner.runs[1:] for row in run.rows]
        assert sorted(retried) == sorted(row.id for row in runner.runs[0].rows[3:])
        assert {(len(run), run.attempt) for run in runner.runs[1:]} == {(1, 2)}, "each is asked about by itself"


@pytest.mark.parametrize("left", [[0, 0, 3, 99, -1], 5, None])
async def test_a_start_that_returns_nonsense_costs_nobody_else(left: Any) -> None:
    class Nonsense(Runner):
        def begin(self, run: Run) -> Sequence[int]:
            if len(self.runs) > 1:
                return super().begin(run)
            nothing: Sequence[int] = left
            self.answer(run, [index for index in range(len(run)) if not isinstance(left, list) or index not in left])
            return nothing

    runner = Nonsense()
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 10)
        assert (await receipt.wait(60)).counts["accepted"] == 10
        assert state_of(engine).faults == (not isinstance(left, list))


async def test_a_forgotten_delivery_is_given_up_alone_and_its_late_answer_is_dropped() -> None:
    runner = Runner()
    runner.hold = True
    async with over(runner, policy=SLOW) as (engine, _):
        await broadcast(engine, 10)
        await until(lambda: bool(runner.runs))
        state, run = state_of(engine), runner.runs[0]
        runner.answer(run, range(9))
        state.watch(state.clock.monotonic() + 1)
        assert state.faults == 1
        assert state.under_way == 0
        assert run.over(9)
        runner.answer(run, [9, 0])
        assert state.pump.late == 2
        assert observe(engine).bindings[0].late == 2
        (lease,) = state.leases.values()
        assert len(lease.accepted) == 9
        await until(lambda: not state.leases)


async def test_a_refused_run_spends_attempts_and_a_closed_gate_is_probed_by_one() -> None:
    runner = Runner(lambda message, delivery: Unavailable("unknown", Scope.GROUP, "down") if down else ACCEPTED)
    down = True
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 40)
        await until(lambda: len(runner.runs) > 3)
        assert len(runner.runs[2]) == 1
        assert runner.runs[2].fresh
        down = False
        await engine.resume_binding("push")
        assert (await receipt.wait(60)).counts["accepted"] == 40
        assert state_of(engine).under_way == 0  # each was counted once as ended, behind a closed gate too


async def test_what_was_cancelled_is_not_started() -> None:
    runner = Runner(capacity=32)
    runner.hold = True
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 100)
        await until(lambda: len(runner.runs) == 1)
        [lease] = state_of(engine).leases.values()
        cancelling = asyncio.create_task(engine.cancel(receipt.id))  # which waits for what is under way
        await until(lambda: lease.prepared.stopped)
        runner.hold = False
        runner.answer(runner.runs[0])
        await cancelling
        counts = (await receipt.wait(60)).counts
        assert counts["accepted"] + counts["cancelled"] == 100
        assert len(runner.runs) == 1


async def test_what_is_cancelled_after_it_was_handed_to_the_senders_is_not_sent() -> None:
    class Unready(Runner):
        def begin(self, run: Run) -> Sequence[int]:
            return range(len(run))

        async def send(self, message: Message, delivery: Delivery) -> Outcome:
            (lease,) = state_of(engine).leases.values()
            lease.prepared.stopped = "cancelled"
            return await super().send(message, delivery)

    runner = Unready()
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 20)
        counts = (await receipt.wait(60)).counts
        assert (counts["accepted"], counts["cancelled"]) == (1, 19)
        assert len(runner.single) == 1


async def test_leaving_gives_up_what_hangs_and_answers_afterwards_reach_nobody() -> None:
    runner = Runner()
    runner.hold = True
    async with over(runner, drain_timeout=0.05) as (engine, _):
        await broadcast(engine, 5)
        await until(lambda: bool(runner.runs))
        state = state_of(engine)
    assert state.under_way == 0
    runner.answer(runner.runs[0])
    assert state.pump.late == 5


async def test_a_fault_of_the_engine_in_an_answer_stops_the_engine_and_not_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = Runner()
    runner.hold = True
    async with over(runner) as (engine, _):
        await broadcast(engine, 3)
        await until(lambda: bool(runner.runs))

        def broken(*_: object) -> None:
            raise RuntimeError("the engine's fault")

        monkeypatch.setattr(state_of(engine).senders, "accept", broken)
        runner.answer(runner.runs[0])
        await until(lambda: engine.fault is not None)


async def test_an_answer_to_another_run_during_start_is_settled_behind_it() -> None:
    class Linked(Runner):
        left: list[int]

        def begin(self, run: Run) -> Sequence[int]:
            if len(self.runs) == 1:
                return []
            (lease,) = state_of(engine).leases.values()
            before = lease.left
            self.answer(self.runs[0], self.runs[0].pending())
            self.left = [before - lease.left]
            return super().begin(run)

    runner = Linked()
    async with over(runner) as (engine, _):
        receipt = await broadcast(engine, 40)
        assert (await receipt.wait(60)).counts["accepted"] == 40
        assert runner.left == [0]


async def test_a_replaced_transports_answer_to_what_was_given_up_is_dropped() -> None:
    old, new = Runner(), Runner()
    old.hold = new.hold = True
    async with over(old) as (engine, _):
        receipt = await broadcast(engine, 5)
        await until(lambda: bool(old.runs))
        state = state_of(engine)
        await new.__aenter__()
        state.replace(new)
        state.watch(state.clock.monotonic() + 1)
        await until(lambda: sum(map(len, new.runs)) == 5)
        old.answer(old.runs[0])
        assert state.pump.late == 5
        assert state.under_way == 5, "what the new one was given is not answered by the old one"
        for run in new.runs:
            assert run.attempt == 2
            new.answer(run)
        assert (await receipt.wait(60)).counts["accepted"] == 5
