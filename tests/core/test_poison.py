"""Whatever kills the worker is found, and nobody else ends for it, however many other kills there were."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.poison import after_crash
from fanout.core.statemap import MARKED, OPEN, RETRIED


class Chunk:
    """A chunk of numbered deliveries, as a storage would keep it."""

    def __init__(self, ids: list[int], crashes: int = 0, part: int = 0) -> None:
        self.ids = ids
        self.states = bytearray(len(ids))
        self.crashes = crashes
        self.part = part


def work(chunk: Chunk, poison: set[int], kill: random.Random, odds: float, sent: list[int]) -> bool:
    """A worker's turn with the chunk; False if it died of it."""
    while open_ := [i for i, state in enumerate(chunk.states) if state in (OPEN, MARKED)]:
        group = open_[: chunk.part or len(open_)]
        if kill.random() < odds:
            return False
        if chunk.part:
            for i in group:
                chunk.states[i] = MARKED
        if kill.random() < odds or any(chunk.ids[i] in poison for i in group):
            return False
        for i in group:
            chunk.states[i] = 1
            sent.append(chunk.ids[i])
    return True


@given(
    size=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    odds=st.sampled_from([0.0, 0.05, 0.2]),
    data=st.data(),
)
def test_only_what_was_alone_at_three_crashes_dies(size: int, seed: int, odds: float, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, size - 1), max_size=3))
    kill = random.Random(seed)
    queue = [Chunk(list(range(size)))]
    sent: list[int] = []
    dead: list[int] = []
    alone: dict[int, int] = {}
    crashes = 0
    while queue:
        chunk = queue.pop(0)
        # Random kills end some time; what is poison goes on killing.
        if work(chunk, poison, kill, odds if crashes < 200 else 0.0, sent):
            continue
        crashes += 1
        assert crashes < 2000
        marked = [i for i, state in enumerate(chunk.states) if state == MARKED]
        if len(marked) == 1:
            alone[chunk.ids[marked[0]]] = alone.get(chunk.ids[marked[0]], 0) + 1
        after = after_crash(bytes(chunk.states), chunk.crashes, chunk.part)
        chunk.crashes, chunk.part = after.crashes, after.part
        for i in after.dead:
            chunk.states[i] = 2
            dead.append(chunk.ids[i])
        if after.moved:
            queue.append(Chunk([chunk.ids[i] for i in after.moved], after.moved_crashes, after.moved_part))
            for i in after.moved:
                chunk.states[i] = RETRIED
        queue.append(chunk)
    assert sorted(sent + dead) == list(range(size))
    assert poison <= set(dead)
    assert all(alone[id] == 3 for id in dead)
    if odds == 0.0:
        assert set(dead) == poison


@pytest.mark.parametrize("crashes", [0, 1])
def test_nobody_is_suspected_before_the_second_crash(crashes: int) -> None:
    after = after_crash(bytes(1000), crashes, 0)
    assert (after.part, after.dead, after.moved) == ((0, (), ()) if crashes == 0 else (500, (), ()))


def test_a_thousand_are_halved_in_ten_crashes() -> None:
    part, crashes = 500, 0
    while part > 1:
        after = after_crash(bytes([MARKED] * part), crashes, part)
        part, crashes = after.moved_part, after.moved_crashes
        assert not after.dead
    assert crashes == 0


def test_a_crash_between_two_groups_implicates_nobody() -> None:
    states = bytes([1, 1, OPEN, OPEN])
    for _ in range(100):
        after = after_crash(states, 0, 2)
        assert (after.crashes, after.part, after.moved, after.dead) == (0, 2, (), ())
