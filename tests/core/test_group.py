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
    return SimpleNamespace(lane=lane, careful=False)


def taken(each: Group, one: bool) -> list[Any]:
    """What is taken next: the lease, for each delivery of the run once."""
    if one:
        item = each.take(0.0)
        assert item is not None
        return [item[0]]
    run = each.take_run(0.0, wary=False)
    assert run is not None
    assert 0 < len(run[1]) <= 32
    return [run[0]] * len(run[1])


def group(limit: int = 100_000) -> Group:
    made = Group("", Policy(), Gate(Policy()))
    made.limit = limit
    return made


@pytest.mark.parametrize("one", [True, False], ids=["one by one", "in runs"])
@pytest.mark.parametrize("busy", [(0, 1, 2), (0, 2), (1, 2), (2,)])
def test_lanes_take_turns_by_their_weights(busy: tuple[int, ...], one: bool) -> None:
    """In any stretch of some rounds each lane with work has its share, and none is starved."""
    each = group()
    for lane in busy:
        each.queues[lane].add(lease(lane), range(50_000), 50_000)
    total = sum(WEIGHTS[lane] for lane in busy)
    rounds = 50
    counts: Counter[int] = Counter()
    while counts.total() < rounds * 16 * total:
        counts.update(lease.lane for lease in taken(each, one))
    assert counts == {lane: rounds * 16 * WEIGHTS[lane] for lane in busy}
    assert len(WEIGHTS) == len(LANES)


@pytest.mark.parametrize("one", [True, False], ids=["one by one", "in runs"])
def test_leases_of_one_lane_take_turns(one: bool) -> None:
    each = group()
    first, second = lease(1), lease(1)
    each.queues[1].add(first, range(1000), 1000)
    each.queues[1].add(second, range(1000), 1000)
    order: list[Any] = []
    while len(order) < 640:
        order += taken(each, one)
    assert Counter(map(id, order)) == {id(first): 320, id(second): 320}
    assert all(order[n : n + 32] == [order[n]] * 32 for n in range(0, 640, 32))


def test_no_more_than_the_limit_are_taken() -> None:
    each = group(limit=3)
    each.queues[0].add(lease(0), range(10), 10)
    assert [each.take(0.0) is not None for _ in range(5)] == [True, True, True, False, False]


def test_a_run_is_as_long_as_there_is_room_and_one_where_each_is_asked_about() -> None:
    each, plain, careful = group(limit=50), lease(0), lease(0)
    careful.careful = True
    each.queues[0].add(plain, range(100), 100)
    each.queues[0].add(careful, range(5), 5)
    assert each.take_run(0.0, wary=True) == (plain, [0])
    assert each.take_run(0.0, wary=False) == (plain, [*range(1, 32)])
    assert each.take_run(0.0, wary=False) == (careful, [0])
    for position in range(1, 5):
        assert each.take_run(0.0, wary=False) == (careful, [position])
    each.limit = each.active + 7
    assert each.take_run(0.0, wary=False) == (plain, [*range(32, 39)])
    assert each.take_run(0.0, wary=False) is None
