"""Retries never multiply the load, and never wait for ever."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.budget import RetryBudget


@given(
    ratio=st.floats(0, 1),
    burst=st.integers(1, 50),
    floor=st.floats(0.01, 10),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.floats(0, 5)), max_size=60),
)
def test_retries_stay_within_what_was_earned(
    ratio: float, burst: int, floor: float, steps: list[tuple[int, int, float]]
) -> None:
    budget = RetryBudget(ratio=ratio, burst=burst, floor=floor)
    now, successes, retries = 1000.0, 0, 0
    for succeeded, wanted, seconds in steps:
        budget.deposit(succeeded)
        successes += succeeded
        for _ in range(30 + succeeded):
            budget.failed()
        retries += sum(budget.take(now) for _ in range(wanted))
        assert retries <= ratio * successes + burst + floor * (now - 1000.0) + 1e-6
        assert 0.0 <= budget.tokens <= burst
        now += seconds


def test_amplification_at_half_failing_stays_under_one_and_the_ratio() -> None:
    rng = random.Random(4)
    budget = RetryBudget(ratio=0.2, burst=100, floor=1.0)
    fresh, waiting, attempts = 100_000, 0, 0

    for _ in range(fresh):
        attempts += 1
        for retry in (False, True):
            if retry:
                if not (waiting and budget.take(1.0)):
                    break
                waiting -= 1
                attempts += 1
            if rng.random() < 0.5:
                waiting += 1
                budget.failed()
            else:
                budget.deposit(1)

    assert attempts / fresh <= 1.2
    assert waiting, "what the budget did not pay for waits; nothing failed"


def test_what_waits_is_tried_in_the_end_although_nothing_succeeds() -> None:
    budget = RetryBudget(ratio=0.2, burst=5, floor=1.0)
    for _ in range(10):
        budget.failed()

    taken = sum(budget.take(1000.0 + second / 10) for second in range(1000))

    assert 100 <= taken <= 106


def test_what_an_outage_left_behind_costs_nothing_once_the_gateway_is_well() -> None:
    budget = RetryBudget(ratio=0.2, burst=5, floor=1.0)
    budget.deposit(20)
    for _ in range(1000):
        budget.failed()
    while budget.take(1000.0):
        assert budget.failing

    seconds = 0
    while budget.failing:
        seconds += 1
        assert seconds < 60, "the trickle shows that the gateway is back"
        if budget.take(1000.0 + seconds):
            budget.deposit(1)

    assert all(budget.take(1000.0 + seconds) for _ in range(100_000))
