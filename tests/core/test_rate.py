"""Token buckets."""

from __future__ import annotations

from fanout.core.rate import Rate


def test_a_burst_and_then_the_rate() -> None:
    rate = Rate(per_second=2.0, burst=3.0)
    assert [rate.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert rate.take(100.0) == 0.5
    assert rate.take(100.4) > 0
    assert rate.take(100.5) == 0.0
    assert rate.take(100.5) == 0.5


def test_what_is_not_taken_is_saved_up_to_the_burst_and_no_further() -> None:
    rate = Rate(per_second=2.0, burst=3.0)
    for _ in range(3):
        rate.take(0.0)
    assert [rate.take(1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_refusal_takes_nothing_and_a_clock_that_goes_back_gives_nothing() -> None:
    rate = Rate(per_second=1.0, burst=1.0)
    assert rate.take(10.0) == 0.0
    assert rate.take(10.5) == 0.5
    assert rate.take(9.0) == 0.5
    assert rate.take(9.5) == 0.0


def test_more_than_the_burst_waits_for_a_full_bucket_and_not_for_ever() -> None:
    rate = Rate(per_second=1.0, burst=5.0)
    assert rate.take(0.0, 50) == 0.0
    assert rate.take(0.0, 50) == 5.0
