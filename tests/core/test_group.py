"""A group's queue, without an engine: lanes take turns by their weights, and leases of one lane take turns with each other."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from fanout.core.gate import Gate
from fanout.core.lanes import WEIGHTS
from fanout.core.model import LANES
from fanout.core.policy import Policy
from fanout.engine.group import Group


def lease(lane: int) -> Any:
    """As much of a lease as a queue looks at."""
    return SimpleNamespace(lane=lane)


def group(limit: int = 100_000) -> Group:
    made = Group("", Policy(), Gate(Policy()))
    made.limit = limit
    return made


@pytest.mark.parametrize("busy", [(0, 1, 2), (0, 2), (1, 2), (2,)])
def test_lanes_take_turns_by_their_weights(busy: tuple[int, ...]) -> None:
    """In any stretch of some rounds each lane with work has its share, and none is starved."""
    each = group()
    for lane in busy:
        each.queues[lane].add(lease(lane), range(50_000), 50_000)
    total = sum(WEIGHTS[lane] for lane in busy)
    rounds = 50
    taken: Counter[int] = Counter()
    for _ in range(rounds * 16 * total):
        item = each.take(0.0)
        assert item is not None
        taken[item[0].lane] += 1
    assert taken == {lane: rounds * 16 * WEIGHTS[lane] for lane in busy}
    assert len(WEIGHTS) == len(LANES)


def test_leases_of_one_lane_take_turns() -> None:
    each = group()
    first, second = lease(1), lease(1)
    each.queues[1].add(first, range(1000), 1000)
    each.queues[1].add(second, range(1000), 1000)
    taken = [item[0] for _ in range(640) if (item := each.take(0.0)) is not None]
    assert Counter(map(id, taken)) == {id(first): 320, id(second): 320}
    assert all(taken[n : n + 32] == [taken[n]] * 32 for n in range(0, 640, 32))


def test_no_more_than_the_limit_are_taken() -> None:
    each = group(limit=3)
    each.queues[0].add(lease(0), range(10), 10)
    assert [each.take(0.0) is not None for _ in range(5)] == [True, True, True, False, False]
