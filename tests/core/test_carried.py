"""Another machine's clock, carried on: however late the answers come, it is known to half of the shortest of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.carried import carried

_seconds = st.floats(0.0, 100.0)


@given(
    st.floats(-1e9, 1e9),
    st.lists(st.tuples(_seconds, _seconds, st.floats(0.0, 1.0)), min_size=1, max_size=20),
)
def test_the_offset_is_known_to_the_shortest_reading(offset: float, readings: list[tuple[float, float, float]]) -> None:
    believed: float | None = None
    now, shortest = 1000.0, float("inf")
    for pause, took, share in readings:
        before = now + pause
        now = before + took
        believed = carried(believed, before + share * took + offset, before, now)
        shortest = min(shortest, took)
        assert abs(believed - offset) <= shortest + 1e-6


def test_a_slow_answer_moves_nothing() -> None:
    exact = carried(None, 5000.0, 100.0, 100.0)
    assert exact == 4900.0
    assert carried(exact, 5001.0, 100.5, 130.0) == exact, "it may have been read at 101"


def test_a_clock_that_was_set_is_followed() -> None:
    exact = carried(None, 5000.0, 100.0, 100.0)
    assert carried(exact, 8601.0, 101.0, 101.0) == exact + 3600
    assert carried(exact, 1401.0, 101.0, 101.0) == exact - 3600
