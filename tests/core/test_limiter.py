"""Adaptive concurrency: narrower for a gateway that slows down or fails, never below one, never above the capacity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.limiter import Limiter


def windows(limiter: Limiter, count: int, *, latency: float, ceiling: int, busy: bool = True, drops: int = 0) -> int:
    """So many windows of 50 answers each."""
    limit = ceiling
    for _ in range(count):
        for _ in range(50):
            limiter.answered(latency)
        for _ in range(drops):
            limiter.dropped()
        limit = limiter.adjust(
            int(limiter.limit) if busy and limiter.limit < 1e9 else (ceiling if busy else 1), ceiling
        )
    return limit


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(0, 100), max_size=30), st.integers(0, 30), st.integers(0, 2000), st.integers(1, 1000)
        ),
        max_size=50,
    )
)
def test_it_stays_between_one_and_the_capacity(
    steps: list[tuple[list[float], int, int, int]],
) -> None:
    limiter = Limiter()
    for latencies, drops, in_flight, ceiling in steps:
        for latency in latencies:
            limiter.answered(latency)
        for _ in range(drops):
            limiter.dropped()
        assert 1 <= limiter.adjust(in_flight, ceiling) <= ceiling


def test_a_steady_gateway_keeps_its_capacity() -> None:
    assert windows(Limiter(), 200, latency=0.02, ceiling=1000) == 1000


def test_a_gateway_that_slows_down_is_narrowed_and_widened_again() -> None:
    limiter = Limiter()
    windows(limiter, 50, latency=0.01, ceiling=1000)

    slow = windows(limiter, 12, latency=5.0, ceiling=1000)
    assert slow < 500

    assert windows(limiter, 2000, latency=0.01, ceiling=1000) == 1000


def test_a_new_connection_that_takes_few_at_first_costs_nothing_later() -> None:
    limiter = Limiter()
    windows(limiter, 20, latency=0.01, ceiling=1000)
    assert windows(limiter, 20, latency=0.01, ceiling=1) == 1
    assert limiter.adjust(1, 1) == 1

    assert windows(limiter, 1, latency=0.01, ceiling=1000) == 1000


def test_throttling_narrows_it_down_to_one() -> None:
    limiter = Limiter()

    assert windows(limiter, 200, latency=0.01, ceiling=1000, drops=25) == 1


def test_a_few_failing_endpoints_are_not_the_gateways_fault() -> None:
    limiter = Limiter()

    assert windows(limiter, 200, latency=0.01, ceiling=1000, drops=2) == 1000


def test_it_does_not_grow_while_the_application_is_the_limit() -> None:
    limiter = Limiter()
    narrow = windows(limiter, 30, latency=0.01, ceiling=1000, drops=25)

    assert windows(limiter, 100, latency=0.01, ceiling=1000, busy=False) <= max(narrow, 2)


def test_a_silence_costs_a_tenth_and_no_more_while_a_new_connection_is_on_trial() -> None:
    """300 requests end in a timeout at once, and their connection is replaced by one that takes one at first."""
    limiter = Limiter()
    windows(limiter, 20, latency=0.01, ceiling=1000)
    for _ in range(300):
        limiter.dropped()
    assert limiter.adjust(300, 1) == 1
    for _ in range(20):  # and nor does the trial of others, until one stays
        limiter.dropped()
        assert limiter.adjust(1, 1) == 1

    assert limiter.adjust(1, 1000) > 100


def test_a_narrow_limit_grows_with_a_few_answers() -> None:
    """As many as one at a time brings within seconds, where an answer takes 0.3 s."""
    limiter = Limiter()
    windows(limiter, 200, latency=0.3, ceiling=1000, drops=25)
    limit, answers = 1, 0
    while limit < 8:
        limiter.answered(0.3)
        answers += 1
        limit = limiter.adjust(limit, 1000)
    assert answers <= 16


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 400))
def test_failures_narrow_it_by_a_tenth_of_what_was_under_way_at_most(
    before: int, in_flight: int, ceiling: int, drops: int
) -> None:
    limiter = Limiter()
    limiter.limit = float(before)
    for _ in range(drops):
        limiter.dropped()
    limiter.adjust(in_flight, ceiling)
    known = min(before, max(in_flight, ceiling))
    assert max(1.0, 0.9 * min(known, max(in_flight, known / 2))) <= limiter.limit <= before


def test_an_outage_that_is_probed_one_at_a_time_leaves_most_of_the_limit() -> None:
    """Nobody is there: there are no connections, so that the capacity is one, and what fails are probes."""
    limiter = Limiter()
    windows(limiter, 20, latency=0.01, ceiling=1000)
    for _ in range(12):  # in an hour or so, with pauses that double
        limiter.dropped()
        limiter.adjust(1, 1)

    assert limiter.adjust(1, 1000) > 600


@pytest.mark.parametrize(("rate", "least"), [(20_000, 500), (4_000, 100)])
def test_answers_that_take_long_from_the_beginning_are_no_slowness(rate: int, least: int) -> None:
    """Half are answered at once, half after 0.4 s; of what is sent first the quick half is heard of first. One in eight
    is heard of."""
    limiter, limit = Limiter(), 1000
    late = [0] * 8  # what is to be answered in the next windows of 50 ms
    for _ in range(400):
        done = late.pop(0)
        sent = max(0, min(rate // 20, limit - sum(late)))
        for _ in range(done // 8):
            limiter.answered(0.4, 8)
        for _ in range(sent // 16):
            limiter.answered(0.002, 8)
        late.append(sent - sent // 2)
        limit = limiter.adjust(sum(late) + sent // 2, 1000)
        assert limit >= least
