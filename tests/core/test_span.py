"""What is left of an instant of our own making, whatever is done to the clock."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.gate import Gate, GateState
from fanout.core.policy import Policy
from fanout.core.span import ends_at, outlived

HOURS = 3600.0
_moments = st.floats(0.0, 2e9)
_lengths = st.floats(0.001, 1e6)


@given(_moments, _lengths, _moments)
def test_never_more_is_left_than_it_was_made_for(since: float, length: float, now: float) -> None:
    left = ends_at(since, since + length, now) - now
    assert 0 <= left <= length * (1 + 1e-9) + 1e-6
    assert (left == 0) == outlived(since, since + length, now)


@given(_moments, _lengths, st.floats(0.0, 1.0))
def test_where_nobody_sets_the_clock_it_ends_when_it_was_to(since: float, length: float, share: float) -> None:
    until, now = since + length, since + share * length
    assert ends_at(since, until, now) == max(now, until)


def closed(now: float, after: float) -> Gate:
    gate = Gate(Policy(request_timeout=15.0))
    gate.close(now, random.Random(1), reason="x", after=after)
    return gate


def test_a_gate_that_was_closed_while_the_clock_was_ahead_opens_in_its_time() -> None:
    gate = closed(8 * HOURS, 3.8)
    assert gate.shut(8 * HOURS + 1)
    assert not gate.shut(10.0)
    assert gate.ready(10.0)
    back_a_little = closed(100.0, 3.8)
    assert back_a_little.shut(98.0)
    assert back_a_little.opens_at(98.0) == 98.0 + 3.8, "not 5.8 seconds from now"


def test_a_closed_gate_takes_a_later_time_by_what_is_left_of_it() -> None:
    gate = closed(100.0, 50.0)
    assert not gate.close(60.0, random.Random(1), reason="y", after=60.0), "the clock was set back by 40 s"
    assert gate.opens_at(60.0) == 120.0


def test_a_probe_from_before_the_clock_was_set_back_is_lost_in_its_time() -> None:
    gate = closed(8 * HOURS, 1.0)
    assert gate.admits(8 * HOURS + 1)
    assert gate.state is GateState.PROBING
    assert gate.ready(100.0)
    assert gate.admits(100.0)
    assert not gate.ready(101.0)


def test_the_load_comes_back_although_the_clock_is_set_back() -> None:
    gate = closed(8 * HOURS, 1.0)
    for _ in range(3):
        gate.admits(8 * HOURS + 2)
        gate.succeeded(8 * HOURS + 2)
    assert gate.is_open
    assert gate.share(8 * HOURS + 2) < 1
    assert gate.share(100.0) < 1
    assert gate.share(110.0) == 1.0, "ten seconds later, and not in eight hours"
