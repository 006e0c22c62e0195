"""How much is leased ahead, over the whole space: never idle for want of room, never more than is meant, and none at
the cost of another."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.window import LEAST, MOST, excess, least, next_window, room
from fanout_kit.examples import examples

QUICK = settings(derandomize=True, deadline=None, max_examples=examples(200))
LIMITS = st.integers(0, 10_000)
GATEWAYS = st.integers(0, 300)
WAITING = st.lists(st.integers(0, 5_000), max_size=30)


@QUICK
@given(size=st.integers(1, 40_000), limit=LIMITS, gateways=GATEWAYS, emptied=st.booleans(), lasted=st.floats(0.0, 60.0))
def test_a_window_is_twice_the_limit_at_least_and_doubles_when_it_was_emptied(
    size: int, limit: int, gateways: int, emptied: bool, lasted: float
) -> None:
    after = next_window(size, limit, gateways, emptied=emptied, lasted=lasted)
    floor = least(limit, gateways)
    assert max(LEAST, 2 * limit) <= floor <= after <= max(MOST, floor)
    if emptied and lasted <= 0.5:
        assert after >= min(2 * size, MOST)
    else:
        assert after <= max(floor, size)
    assert next_window(size, limit, gateways, emptied=emptied, lasted=math.inf) <= max(floor, size // 2)


@QUICK
@given(window=st.integers(LEAST, 40_000), waiting=WAITING, stuck=st.integers(0, 50_000))
def test_room_is_bounded_and_nobody_is_kept_out(window: int, waiting: list[int], stuck: int) -> None:
    free = room(window, waiting, stuck)
    most = max(MOST, window)
    assert 0 <= free <= window
    assert free == 0 or sum(waiting) + stuck + free <= most
    part = window // max(1, len(waiting))
    if all(each >= part for each in waiting) and waiting:
        assert free <= len(waiting), "each has its part: but for what the division leaves, nothing more is leased"
    if sum(waiting) + stuck + window <= most and any(each == 0 for each in waiting):
        assert free > 0, "a gateway that has nothing to send gets something, however slow the others are"
    if not waiting and not stuck:
        assert free == window


@QUICK
@given(queued=st.integers(0, 100_000), limit=LIMITS, sent=st.floats(0.0, 1e6))
def test_what_is_sent_within_a_second_is_kept(queued: int, limit: int, sent: float) -> None:
    over = excess(queued, limit, sent)
    assert 0 <= over <= queued
    assert queued - over >= min(queued, limit, int(sent))
    if queued > max(LEAST, limit, sent):
        assert over > 0


def test_by_example() -> None:
    assert room(LEAST, [], 0) == 64, "room for 20 at once: 64 are leased"
    assert room(LEAST, [44], 0) == 0
    assert room(LEAST, [32], 0) == 32, "and half of them when half is left"
    assert room(LEAST, [64, 0], 0) == 32, "a slow gateway has its part, and another the other"
    assert room(LEAST, [0], 3_000) == 64, "one that does not answer is in nobody's way"
    assert room(LEAST, [], MOST) == 0, "up to a bound"
    sizes = [LEAST]
    for _ in range(7):
        sizes.append(next_window(sizes[-1], 20, 1, emptied=True, lasted=0.006))
    assert sizes == [64, 128, 256, 512, 1024, 2048, 4000, 4000]
    assert next_window(4000, 20, 1, emptied=False, lasted=1.0) == 2000, "a gateway that has become slow"
    assert excess(980, 20, 100.0) == 880
