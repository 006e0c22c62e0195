"""Slices: nobody waits for ever, and the loop is never held for long."""

from __future__ import annotations

import asyncio

import pytest

from fanout_webpush.turns import Turns

pytestmark = pytest.mark.anyio


class Ticks:
    """A clock that moves only when work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _work(turns: Turns, clock: Ticks, cost: float, done: list[int], number: int) -> None:
    future = turns.wait()
    if future is not None:
        await future
    begun = clock()
    clock.now += cost
    turns.took(begun)
    done.append(number)


async def test_everybody_gets_a_turn_in_the_order_of_asking() -> None:
    clock = Ticks()
    turns = Turns(clock=clock, slice=0.002)
    done: list[int] = []
    await asyncio.gather(*(_work(turns, clock, 0.0001, done, n) for n in range(500)))
    assert done == list(range(500))


async def test_the_loop_runs_between_slices() -> None:
    clock = Ticks()
    turns = Turns(clock=clock, slice=0.002)
    done: list[int] = []
    held: list[float] = []
    last = 0.0
    stop = False

    def beat() -> None:
        nonlocal last
        held.append(clock.now - last)
        last = clock.now
        if not stop:
            asyncio.get_running_loop().call_soon(beat)

    beat()
    await asyncio.gather(*(_work(turns, clock, 0.0001, done, n) for n in range(1000)))
    stop = True
    await asyncio.sleep(0)
    assert len(done) == 1000
    assert max(held) <= 0.0021


async def test_slow_turns_make_small_slices() -> None:
    clock = Ticks()
    turns = Turns(clock=clock, slice=0.002)
    done: list[int] = []
    await asyncio.gather(*(_work(turns, clock, 0.001, done, n) for n in range(200)))
    assert turns.wait() is None
    assert len(done) == 200


async def test_a_cancelled_waiter_keeps_nobody_waiting() -> None:
    clock = Ticks()
    turns = Turns(clock=clock, slice=0.002)
    done: list[int] = []
    tasks = [asyncio.ensure_future(_work(turns, clock, 0.0001, done, n)) for n in range(300)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(range(1, 300, 2)) <= set(done)


async def test_without_demand_nothing_is_scheduled() -> None:
    turns = Turns(clock=Ticks())
    assert turns.wait() is None
    for _ in range(4):
        await asyncio.sleep(0)
    assert not turns._scheduled


async def test_a_clock_that_stands_still_still_yields() -> None:
    turns = Turns(clock=lambda: 0.0)
    for _ in range(200):
        turns.took(0.0)
    taken = 0
    while turns.wait() is None:
        taken += 1
    assert taken == 64
