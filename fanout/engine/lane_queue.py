"""The deliveries of one lane of a group that are ready to go: leases take turns, and no object stands for a
delivery."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

from fanout.core.run import MOST
from fanout.engine.lease import Lease

__all__ = ["Item", "LaneQueue"]

Item = tuple[Lease, int]
_TURN = MOST
"""Deliveries of one lease before it is the next one's turn: one huge notification holds no other of its lane back."""
_LOOKED_AT = 32
"""Deliveries among which a probe is chosen."""


class _Batch:
    """The deliveries of one lease that wait here. No object stands for a single delivery."""

    __slots__ = ("lease", "left", "positions")

    def __init__(self, lease: Lease, positions: Iterator[int], left: int) -> None:
        self.lease = lease
        self.positions = positions
        self.left = left


class Owner(Protocol):
    """The group that a queue belongs to."""

    queued: int
    """Deliveries that wait in all of its queues."""


class LaneQueue:
    """The deliveries of one lane that are ready to go; leases take turns."""

    __slots__ = ("_batches", "_lane", "_owner", "_sizes", "_turn", "credit", "size")

    def __init__(self, credit: int, lane: int, sizes: list[int], owner: Owner) -> None:
        """`sizes` are sums by lane over all groups of a binding, and `owner` has one over all lanes: this queue keeps
        its part of them."""
        self._owner = owner
        self._batches: deque[_Batch] = deque()
        self._turn = _TURN
        self._lane = lane
        self._sizes = sizes
        self.size = 0
        self.credit = credit

    def _grow(self, count: int) -> None:
        self.size += count
        self._owner.queued += count
        self._sizes[self._lane] += count

    def add(self, lease: Lease, positions: Iterable[int], count: int) -> None:
        """Behind the waiting ones."""
        self._batches.append(_Batch(lease, iter(positions), count))
        self._grow(count)

    def put_back(self, lease: Lease, position: int) -> None:
        """Before all else."""
        self._batches.appendleft(_Batch(lease, iter((position,)), 1))
        self._grow(1)

    def pop(self) -> Item:
        """The next delivery. Only while `size` is not 0."""
        batch = self._batches[0]
        position = next(batch.positions)
        self._grow(-1)
        batch.left = left = batch.left - 1
        self._turn = turn = self._turn - 1
        if not (left and turn):
            self._end_turn(left)
        return batch.lease, position

    def pop_run(self, most: int, *, single: bool) -> tuple[Lease, list[int]]:
        """The next deliveries of one lease, up to so many: one where each must be asked about. Only while `size` is not
        0."""
        batch = self._batches[0]
        lease = batch.lease
        positions = [*islice(batch.positions, 1 if single or lease.careful else min(most, self._turn))]
        count = len(positions)
        self._grow(-count)
        batch.left -= count
        self._turn -= count
        if not (batch.left and self._turn):
            self._end_turn(batch.left)
        return lease, positions

    def _end_turn(self, left: int) -> None:
        """Of the first lease so many are left: it is the next one's turn."""
        self._turn = _TURN
        if left:
            self._batches.rotate(-1)
        else:
            del self._batches[0]

    def best(self, rank: Callable[[Lease, int], int]) -> Item:
        """Of the next deliveries the one that ranks highest; the others stay as they are. Only while `size` is not
        0."""
        candidates = [self.pop() for _ in range(min(self.size, _LOOKED_AT))]
        ranks = [rank(lease, position) for lease, position in candidates]
        chosen = candidates.pop(ranks.index(max(ranks)))
        for lease, position in reversed(candidates):
            self.put_back(lease, position)
        return chosen

    def others(self, lease: Lease) -> bool:
        """Whether another notification than that of `lease` waits here."""
        return any(batch.lease.prepared is not lease.prepared for batch in self._batches)

    def drain(self) -> Iterator[Item]:
        """Take everything."""
        batches, self._batches = self._batches, deque()
        self._grow(-self.size)
        self._turn = _TURN
        for batch in batches:
            for position in batch.positions:
                yield batch.lease, position

    def give_up(self, count: int) -> Iterator[Item]:
        """Take up to so many, the last first. A delivery that is suspected of a crash stays: its count of crashes would
        be lost."""
        batches = self._batches
        for batch in reversed(batches):
            if not count:
                break
            if batch.lease.chunk.part:
                continue
            keep = max(0, batch.left - count)
            positions = list(batch.positions)
            batch.positions, batch.left = iter(positions[:keep]), keep
            count -= len(positions) - keep
            self._grow(keep - len(positions))
            for position in positions[keep:]:
                yield batch.lease, position
        self._batches = deque(batch for batch in batches if batch.left)
        self._turn = _TURN

    def drain_stopped(self) -> Iterator[Item]:
        """Take the deliveries of stopped notifications."""
        if not any(batch.lease.prepared.stopped for batch in self._batches):
            return
        batches, self._batches = self._batches, deque()
        for batch in batches:
            if not batch.lease.prepared.stopped:
                self._batches.append(batch)
                continue
            self._grow(-batch.left)
            for position in batch.positions:
                yield batch.lease, position
