"""`wait` for what was accepted here: no question to storage where the settlement tells the end, and none forgotten
where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rig import fresh_storage, register, running

from fanout.core.model import Notification
from fanout.core.records import Settled, Settlement, Status
from fanout.engine.waiters import Waiters

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")


def asked(storage: Any, settled: Any) -> list[str]:
    """The ids of which storage is asked the status from now on; what it answers to settlements goes through
    `settled`."""
    ids: list[str] = []
    read, settle = storage.status, storage.settle

    async def status(id: str, now: float) -> Status | None:
        ids.append(id)
        found: Status | None = await read(id, now)
        return found

    async def told(settlements: Sequence[Settlement], now: float) -> list[Settled]:
        return [await settled(each) for each in await settle(settlements, now)]

    storage.status, storage.settle = status, told
    return ids


async def test_the_final_status_that_a_settlement_tells_is_not_read() -> None:
    storage: Any = fresh_storage()
    read = storage.status

    async def with_status(answer: Settled) -> Settled:
        return replace(answer, status=await read(answer.finished, 0.0)) if answer.finished else answer

    async def none(ids: Sequence[str]) -> list[str]:
        return []

    ids = asked(storage, with_status)
    # Storage could say that it has finished after the commit, and before the answer to the settlement has come back.
    storage.finished = none
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone", "tablet")
        receipts = [await engine.send(HI, "user:alice") for _ in range(3)]
        ended = await asyncio.gather(*(receipt.wait(30) for receipt in receipts))
        assert [status.counts["accepted"] for status in ended] == [2, 2, 2]
        assert ended == await asyncio.gather(*(receipt.wait(30) for receipt in receipts)), "and again, from memory"
        assert ids == []
        assert ended == [await receipt.status() for receipt in receipts]


async def test_an_end_that_nobody_here_was_told_is_found() -> None:
    """As if another process had settled it, before the wait began and before anybody looked at what has changed
    since."""
    storage: Any = fresh_storage()
    seen = asyncio.Event()

    async def silent(answer: Settled) -> Settled:
        if answer.finished:
            seen.set()
        return Settled(answer.stale)

    asked(storage, silent)
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await seen.wait()
        assert (await receipt.wait(0)).counts["accepted"] == 1, "not even with no time to wait"
        while engine._upkeep._seen != (last := await storage.changes()):
            await asyncio.sleep(0.002)

        async def unchanged(*, others: bool = False) -> Any:
            return last  # a heartbeat or another commit would have it looked at too

        storage.changes = unchanged
        async with asyncio.timeout(120):
            assert (await receipt.wait()).counts["accepted"] == 1


async def test_the_time_limit_ends_the_wait_and_no_wait_leaves_a_timer() -> None:
    storage: Any = fresh_storage()
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        later = await engine.send(HI, "user:alice", at=engine._clock.now() + 600)
        asyncio.get_running_loop().call_later = timers = Timers(asyncio.get_running_loop().call_later)  # type: ignore[method-assign, assignment]
        try:
            ids = asked(storage, None)
            for limit in (0, 0.01):
                with pytest.raises(TimeoutError):
                    await later.wait(limit)
            assert ids == [later.id] * 2, (
                "it is asked about once for each, as it was new: before the word is TimeoutError"
            )
            engine._waiters.forget()  # as in a process that did not accept it
            with pytest.raises(TimeoutError):
                await later.wait(0)
            assert ids == [later.id] * 3, "before it waits, and not again when the time is over"
            waiting = asyncio.create_task(later.wait(500))
            await asyncio.sleep(0)
            async with asyncio.timeout(120):
                while all(limit != 500 for limit, _ in timers.made):
                    await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        finally:
            del asyncio.get_running_loop().call_later
        assert [timer.cancelled() for limit, timer in timers.made if limit == 500] == [True]


class Timers:
    """Remembers the timers that a loop is asked for."""

    def __init__(self, call_later: Any) -> None:
        self._call_later = call_later
        self.made: list[tuple[float, asyncio.TimerHandle]] = []

    def __call__(self, delay: float, *arguments: Any) -> asyncio.TimerHandle:
        self.made.append((delay, self._call_later(delay, *arguments)))
        return self.made[-1][1]


async def test_one_that_is_for_nobody_has_ended_when_send_returns() -> None:
    async with running() as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:nobody")
        assert (await receipt.wait(0)).finished_at is not None


async def test_what_is_remembered_is_bounded_and_ends_with_its_database() -> None:
    waiters = Waiters()
    waiters.accepted(str(n) for n in range(5000))
    assert [waiters.is_new("0"), waiters.unasked, waiters.is_new("4999"), waiters.unasked] == [False, False, True, True]
    waiters.done("4998")
    assert not waiters.is_new("4998")
    waiters.forget()
    assert not waiters.is_new("4999")
