"""The rate: never above the limit, warm after the ramp, cold again after a rest."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout_fcm.shaper import Shaper


def saturate(shaper: Shaper, start: float, end: float, senders: int = 200) -> dict[int, int]:
    """Messages per second where `senders` each send again as soon as they may."""
    queue = [(start, n) for n in range(senders)]
    counts: dict[int, int] = {}
    while queue[0][0] < end:
        at, n = heapq.heappop(queue)
        wait = shaper.take(at, 100.0)
        assert wait >= 0
        counts[int(at + wait)] = counts.get(int(at + wait), 0) + 1
        heapq.heappush(queue, (at + wait + 0.01, n))
    return counts


def test_it_takes_the_ramp_to_warm_up_and_keeps_to_the_limit() -> None:
    counts = saturate(Shaper(1000, 60, 0.0), 0.0, 75.0)
    assert counts[0] <= 300  # a hundred at once, and a sixtieth of the rate
    assert counts[10] < 200
    assert counts[30] < 600
    assert all(counts[second] <= 1000 for second in range(60))
    assert counts[58] < 1000
    assert all(abs(counts[second] - 1000) <= 1 for second in range(70, 74))


def test_without_a_ramp_it_is_warm_at_once() -> None:
    counts = saturate(Shaper(1000, 0, 0.0), 0.0, 10.0, senders=2000)
    assert counts[0] <= 2000  # the burst of a second, and the second itself
    assert all(abs(counts[second] - 1000) <= 1 for second in range(1, 9))


def test_a_trickle_stays_cold_and_costs_nobody_a_wait() -> None:
    shaper = Shaper(1000, 60, 0.0)
    assert all(shaper.take(second / 2, 0.0) == 0 for second in range(400))
    assert shaper.rate == pytest.approx(1000 / 60)


def test_a_rest_makes_it_cold_again() -> None:
    shaper = Shaper(1000, 60, 0.0)
    saturate(shaper, 0.0, 70.0)
    assert shaper.rate == 1000
    shaper.take(100.0, 10.0)
    assert 400 < shaper.rate < 600
    shaper.take(500.0, 10.0)
    assert shaper.rate == pytest.approx(1000 / 60)


def test_who_sends_at_some_rate_may_send_at_twice_of_it() -> None:
    shaper = Shaper(1000, 60, 0.0)
    at = 0.0
    for _ in range(60_000):
        at += max(0.0, shaper.take(at, 10.0)) + 1 / 250
    assert 400 < shaper.rate < 600


def test_a_turn_that_is_too_far_off_is_not_reserved() -> None:
    shaper = Shaper(10, 0, 0.0)
    for _ in range(100):
        assert shaper.take(0.0, 1.0) == 0
    waits = [shaper.take(0.0, 1.0) for _ in range(30)]
    assert waits[:10] == [pytest.approx(n / 10) for n in range(1, 11)]
    assert waits[10:] == [pytest.approx(-1.1)] * 20  # nothing was reserved, so the answer stays the same
    assert shaper.take(1.0, 1.0) == pytest.approx(0.1)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    limit=st.floats(0.5, 20_000),
    ramp=st.sampled_from([0.0, 1.0, 60.0]),
    steps=st.lists(st.floats(0, 5), min_size=1, max_size=300),
)
def test_it_never_lets_more_through_than_limit_and_burst(limit: float, ramp: float, steps: list[float]) -> None:
    shaper = Shaper(limit, ramp, 0.0)
    at, last, through = 0.0, 0.0, 0
    for step in steps:
        at += step
        for _ in range(5):
            wait = shaper.take(at, 3.0)
            assert wait >= -1e9
            if 0 <= wait <= 3.0:
                through += 1
                last = max(last, at + wait)
    assert through <= max(limit, 100.0) + limit * last + 1


def test_a_clock_that_goes_back_does_no_harm() -> None:
    shaper = Shaper(1000, 60, 100.0)
    assert shaper.take(100.0, 1.0) == 0
    assert shaper.take(50.0, 1.0) == 0
    assert shaper.take(101.0, 1.0) == 0
