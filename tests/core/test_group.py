"""A group's queue, without an engine: lanes take turns by their weights, and leases of one lane take turns with each
other."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        each.queues[lane].add(lease(lane), [*reversed(range(50_000))])
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
    each.queues[1].add(first, [*reversed(range(1000))])
    each.queues[1].add(second, [*reversed(range(1000))])
    order: list[Any] = []
    while len(order) < 640:
        order += taken(each, one)
    assert Counter(map(id, order)) == {id(first): 320, id(second): 320}
    assert all(order[n : n + 32] == [order[n]] * 32 for n in range(0, 640, 32))


def test_no_more_than_the_limit_are_taken() -> None:
    each = group(limit=3)
    each.queues[0].add(lease(0), [*reversed(range(10))])
    assert [each.take(0.0) is not None for _ in range(5)] == [True, True, True, False, False]


def test_a_run_is_as_long_as_there_is_room_and_one_where_each_is_asked_about() -> None:
    each, plain, careful = group(limit=50), lease(0), lease(0)
    careful.careful = True
    each.queues[0].add(plain, [*reversed(range(100))])
    each.queues[0].add(careful, [*reversed(range(5))])
    assert each.take_run(0.0, wary=True) == (plain, [0])
    assert each.take_run(0.0, wary=False) == (plain, [*range(1, 32)])
    assert each.take_run(0.0, wary=False) == (careful, [0])
    for position in range(1, 5):
        assert each.take_run(0.0, wary=False) == (careful, [position])
    each.limit = each.active + 7
    assert each.take_run(0.0, wary=False) == (plain, [*range(32, 39)])
    assert each.take_run(0.0, wary=False) is None


_STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 70)),
    st.tuples(st.sampled_from(["take", "run", "drain", "hold", "stop"]), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("give_up"), st.integers(0, 2), st.integers(0, 50)),
)


@given(st.lists(st.tuples(st.integers(0, 1), _STEP), max_size=40))
def test_sums_over_groups_are_what_a_look_at_all_would_find(steps: list[tuple[int, tuple[str, int, int]]]) -> None:
    sizes = [0, 0, 0]
    groups = [Group(name, Policy(), Gate(Policy()), sizes=sizes) for name in "ab"]
    for number, (what, lane, count) in steps:
        each = groups[number]
        each.limit = 1000
        if what == "add":
            made = lease(lane)
            made.chunk, made.prepared = SimpleNamespace(lane=lane, part=0), SimpleNamespace(stopped=count % 2)
            each.queues[lane].add(made, [*reversed(range(count))])
        elif what == "take":
            each.take(0.0)
        elif what == "run" and (run := each.take_run(0.0, wary=False)) is not None:
            each.handed.extend((run[0], position) for position in run[1][:3])
        elif what == "drain":
            list(each.drain())
        elif what == "hold":
            each.hold()
        elif what == "stop":
            list(each.queues[lane].drain_stopped())
        elif what == "give_up":
            list(each.queues[lane].give_up(count))
        for lane_, size in enumerate(sizes):
            held = [sum(len(waiting) for _, waiting in one.queues[lane_]._batches) for one in groups]
            assert held == [one.queues[lane_].size for one in groups]
            assert size == sum(held)
        assert each.active >= len(each.handed)
