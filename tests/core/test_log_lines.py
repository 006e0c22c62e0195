"""The bound of lines about one matter in the log."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.log_lines import LogLines


@settings(max_examples=50)
@given(st.integers(1, 5), st.lists(st.integers(0, 30), max_size=60))
def test_no_window_has_more_lines_than_it_may_and_no_line_is_lost_without_a_word(most: int, steps: list[int]) -> None:
    lines, now, written, said = LogLines(most, 60.0), 0, [], 0
    for step in steps:
        now += step
        left_out = lines.take(now)
        if left_out is not None:
            written.append(now)
            said += left_out
    for at in written:
        assert sum(at <= other < at + 60.0 for other in written) <= 2 * most - 1
    last = lines.take(now + 60.0)
    assert last is not None
    assert len(written) + said + last == len(steps)


def test_a_few_lines_are_all_written() -> None:
    lines = LogLines()
    assert [lines.take(1.0) for _ in range(100)] == [0] * 100
    assert lines.take(2.0) is None
    assert lines.take(61.0) == 1
