"""The parts in which deliveries come forward, over orders of openings, answers of storage and clocks."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.rescheduling import PART, Rescheduling


@given(st.integers(0, 20_000), st.floats(0.0, 1e9))
def test_all_that_waits_is_moved_in_parts_within_seconds(waiting: int, now: float) -> None:
    rescheduling, begin, rounds = Rescheduling(), now, 0
    assert rescheduling.wait(now) == inf
    assert not rescheduling.part(now)
    rescheduling.opened(now)
    while (wait := rescheduling.wait(now)) < inf:
        now += wait
        assert begin < rescheduling.part(now) <= begin + 1.0, (
            "what is put down later waits for a gate that closed since"
        )
        moved = min(waiting, PART)
        waiting -= moved
        rounds += 1
        rescheduling.moved(moved, now)
    assert not waiting
    assert now - begin >= 1.0 - 1e-6, "what was still on its way into storage has come meanwhile"
    assert now - begin <= 1.1 + 0.26 * rounds
    assert not rescheduling.part(now)


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60))
def test_a_host_that_opens_all_the_time_moves_the_work_of_others_each_five_seconds(gaps: list[float]) -> None:
    rescheduling, now, begun = Rescheduling(), 1000.0, []
    for gap in gaps:
        now += gap
        idle = rescheduling.wait(now) == inf
        rescheduling.opened(now)
        if idle:
            begun.append(now + rescheduling.wait(now))
        if rescheduling.part(now):
            rescheduling.moved(0, now)
    assert all(b - a >= 4.99 for a, b in pairwise(begun))


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    rescheduling = Rescheduling()
    rescheduling.opened(1e9)
    rescheduling.moved(0, 1e9 + 2)
    rescheduling.opened(1000.0)
    assert rescheduling.wait(1000.0) == 0.0
