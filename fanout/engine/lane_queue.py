"""The deliveries of one lane of a group that are ready to go: leases take turns, and no object stands for a
delivery."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from fanout.core.run import MOST
from fanout.engine.lease import Lease

__all__ = ["Item", "LaneQueue"]

Item = tuple[Lease, int]
_TURN = MOST
"""Deliveries of one lease before it is the next one's turn: one huge notification holds no other of its lane back."""
_LOOKED_AT = 32
"""Deliveries among which a probe is chosen."""


_Batch = tuple[Lease, list[int]]
"""The deliveries of one lease that wait here, the last first. No object stands for a single delivery."""


_NONE: deque[_Batch] = deque(maxlen=0)
"""The batches of a lane that never had any: a deque of its own takes 0.6 KB, and most groups use one lane of three."""


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
        self._batches = _NONE
        self._turn = _TURN
        self._lane = lane
        self._sizes = sizes
        self.size = 0
        self.credit = credit

    def _grow(self, count: int) -> None:
        self.size += count
        self._owner.queued += count
        self._sizes[self._lane] += count

    def add(self, lease: Lease, waiting: list[int]) -> None:
        """Behind the waiting ones. `waiting` are positions, the last first, and this queue's from now on."""
        if self._batches is _NONE:
            self._batches = deque()
        self._batches.append((lease, waiting))
        count = len(waiting)
        self.size += count  # `_grow`, without the call
        self._owner.queued += count
        self._sizes[self._lane] += count

    def put_back(self, lease: Lease, position: int) -> None:
        """Before all else."""
        if self._batches is _NONE:
            self._batches = deque()
        self._batches.appendleft((lease, [position]))
        self._grow(1)

    def pop(self) -> Item:
        """The next delivery. Only while `size` is not 0."""
        lease, positions = self._batches[0]
        position = positions.pop()
        self.size -= 1  # `_grow`, without the call
        self._owner.queued -= 1
        self._sizes[self._lane] -= 1
        if not positions:
            self._batches.popleft()
            self._turn = _TURN
        elif self._turn == 1:
            self._next_lease()
        else:
            self._turn -= 1
        return lease, position

    def pop_run(self, most: int, *, single: bool) -> tuple[Lease, list[int]]:
        """The next deliveries of one lease, up to so many: one where each must be asked about. Only while `size` is not
        0."""
        lease, positions = self._batches[0]
        if len(positions) == 1:
            return lease, [self.pop()[1]]
        count = 1 if single or lease.careful else min(most, self._turn, len(positions))
        taken = positions[: -count - 1 : -1]
        del positions[-count:]
        self._grow(-count)
        self._turn -= count
        if not positions:
            self._batches.popleft()
            self._turn = _TURN
        elif not self._turn:
            self._next_lease()
        return lease, taken

    def _next_lease(self) -> None:
        """The first lease has had its turn."""
        self._batches.rotate(-1)
        self._turn = _TURN

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
        return any(each.prepared is not lease.prepared for each, _ in self._batches)

    def drain(self) -> Iterator[Item]:
        """Take everything."""
        batches, self._batches = self._batches, _NONE
        self._grow(-self.size)
        self._turn = _TURN
        for lease, positions in batches:
            for position in reversed(positions):
                yield lease, position

    def give_up(self, count: int) -> Iterator[Item]:
        """Take up to so many, the last first. A delivery that is suspected of a crash stays: its count of crashes would
        be lost."""
        batches = self._batches
        if not batches:
            return
        for lease, positions in reversed(batches):
            if not count:
                break
            if lease.chunk.part:
                continue
            given = positions[:count]
            del positions[:count]
            count -= len(given)
            self._grow(-len(given))
            for position in reversed(given):
                yield lease, position
        self._batches = deque(batch for batch in batches if batch[1])
        self._turn = _TURN

    def drain_stopped(self) -> Iterator[Item]:
        """Take the deliveries of stopped notifications."""
        if not any(lease.prepared.stopped for lease, _ in self._batches):
            return
        batches, self._batches = self._batches, deque()
        for lease, positions in batches:
            if not lease.prepared.stopped:
                self._batches.append((lease, positions))
                continue
            self._grow(-len(positions))
            for position in reversed(positions):
                yield lease, position
