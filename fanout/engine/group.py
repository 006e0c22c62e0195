"""A group: the endpoints of one binding that share connections and fate, its queue, its gate and its senders."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from fanout.core.gate import Gate, GateState
from fanout.core.lanes import WEIGHTS
from fanout.core.limiter import Limiter
from fanout.core.policy import Policy
from fanout.engine.lease import Lease

__all__ = ["SAMPLED", "Group", "Item", "LaneQueue"]

Item = tuple[Lease, int]
_OPEN = GateState.OPEN
SAMPLED = 8
"""Of so many answers one tells the limiter how long it took; where no more than so many may be under way, each does."""
_TURN = 32
"""Deliveries of one lease before it is the next one's turn: one huge notification holds no other of its lane back."""
_STUCK = 1.0
"""Seconds without an answer after which a gateway's deliveries leave the window to others'."""
_LOOKED_AT = 32
"""Deliveries among which a probe is chosen."""
_CREDIT = tuple(weight * 16 for weight in WEIGHTS)
"""Deliveries that each lane may send per round while others wait: deficit round robin, as between chunks."""


class _Batch:
    """What of one lease waits here. No object stands for a single delivery."""

    __slots__ = ("lease", "left", "positions")

    def __init__(self, lease: Lease, positions: Iterator[int], left: int) -> None:
        self.lease = lease
        self.positions = positions
        self.left = left


class LaneQueue:
    """The deliveries of one lane that are ready to go; leases take turns."""

    __slots__ = ("_batches", "_turn", "credit", "size")

    def __init__(self, credit: int) -> None:
        self._batches: deque[_Batch] = deque()
        self._turn = _TURN
        self.size = 0
        self.credit = credit

    def add(self, lease: Lease, positions: Iterable[int], count: int) -> None:
        """Behind what waits."""
        self._batches.append(_Batch(lease, iter(positions), count))
        self.size += count

    def put_back(self, lease: Lease, position: int) -> None:
        """Before all else."""
        self._batches.appendleft(_Batch(lease, iter((position,)), 1))
        self.size += 1

    def pop(self) -> Item:
        """The next delivery. Only while `size` is not 0."""
        batches = self._batches
        batch = batches[0]
        position = next(batch.positions)
        self.size -= 1
        batch.left -= 1
        if not batch.left:
            del batches[0]
            self._turn = _TURN
        else:
            self._turn -= 1
            if not self._turn:
                self._turn = _TURN
                batches.rotate(-1)
        return batch.lease, position

    def best(self, rank: Callable[[Lease, int], int]) -> Item:
        """Of the next deliveries the one that ranks highest; the others stay as they are. Only while `size` is not 0."""
        looked = [self.pop() for _ in range(min(self.size, _LOOKED_AT))]
        ranks = [rank(lease, position) for lease, position in looked]
        chosen = looked.pop(ranks.index(max(ranks)))
        for lease, position in reversed(looked):
            self.put_back(lease, position)
        return chosen

    def others(self, lease: Lease) -> bool:
        """Whether another notification than that of `lease` waits here."""
        return any(batch.lease.prepared is not lease.prepared for batch in self._batches)

    def drain(self) -> Iterator[Item]:
        """Take everything."""
        batches, self._batches = self._batches, deque()
        self.size = 0
        self._turn = _TURN
        for batch in batches:
            for position in batch.positions:
                yield batch.lease, position

    def give_up(self, count: int) -> Iterator[Item]:
        """Take up to so many, the last first. What is suspected of a crash stays: its count of crashes would be lost."""
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
            self.size -= len(positions) - keep
            for position in positions[keep:]:
                yield batch.lease, position
        self._batches = deque(batch for batch in batches if batch.left)
        self._turn = _TURN

    def drain_stopped(self) -> Iterator[Item]:
        """Take what belongs to stopped notifications."""
        if not any(batch.lease.prepared.stopped for batch in self._batches):
            return
        batches, self._batches = self._batches, deque()
        for batch in batches:
            if not batch.lease.prepared.stopped:
                self._batches.append(batch)
                continue
            self.size -= batch.left
            for position in batch.positions:
                yield batch.lease, position


class Group:
    """Deliveries that are ready to go, by lane, and the senders that pull them. A hung host occupies only its own group."""

    __slots__ = (
        "active",
        "answers",
        "binding_gate",
        "closing",
        "gate",
        "idle",
        "idle_since",
        "limit",
        "limiter",
        "moved_at",
        "name",
        "peak",
        "probe_free",
        "queues",
        "rank",
        "sampled",
        "seen",
        "senders",
    )

    def __init__(
        self,
        name: str,
        policy: Policy,
        binding_gate: Gate,
        probe_free: Callable[[], None] = lambda: None,
        rank: Callable[[Lease, int], int] = lambda lease, position: 0,
    ) -> None:
        self.name = name
        self.probe_free = (
            probe_free  # tells whoever waits, in any group or in storage, that the binding's gate takes a probe
        )
        self.rank = rank  # how good a probe a delivery is
        self.gate = Gate(policy)
        self.binding_gate = binding_gate
        self.limiter = Limiter()
        self.queues: tuple[LaneQueue, ...] = tuple(map(LaneQueue, _CREDIT))
        self.limit = self.sampled = 1  # of so many answers one tells the limiter how long it took
        self.active = 0  # senders with a delivery in hand
        self.answers = 0  # of senders of this group, whichever it was: a lone sender's turns and positions go in step
        self.seen = 0  # answers at the last look whether there are any
        self.moved_at = 0.0
        self.peak = 0  # the most of them since the limiter was last adjusted
        self.senders = 0
        self.idle: deque[asyncio.Future[None]] = deque()
        self.idle_since = 0.0
        self.closing = False

    @property
    def queued(self) -> int:
        """Deliveries that no sender has taken."""
        urgent, normal, bulk = self.queues  # not a sum over a generator: a window of 4,000 hosts asks often
        return urgent.size + normal.size + bulk.size

    def stuck(self, monotonic: float) -> bool:
        """Whether deliveries are under way and none has been answered for a second, as far as this was asked."""
        if self.answers != self.seen or not self.active:
            self.seen, self.moved_at = self.answers, monotonic
            return False
        return monotonic - self.moved_at > _STUCK

    def take(self, now: float) -> Item | None:
        """The next delivery, if there is one, the connections have room and both gates admit it."""
        active = self.active
        if active >= self.limit or self.closing:
            return None
        for queue in self.queues:
            if queue.size and queue.credit > 0:
                break
        else:
            for queue, credit in zip(self.queues, _CREDIT, strict=True):
                queue.credit = credit
            for queue in self.queues:
                if queue.size:
                    break
            else:
                return None
        gate = self.gate
        if gate.state is not _OPEN or self.binding_gate.state is not _OPEN:
            if not (gate.ready(now) and self.binding_gate.ready(now)):
                return None
            gate.admits(now)
            self.binding_gate.admits(now)
            probe = queue.best(self.rank)
            probe[0].probe, probe[0].fresh = probe[1], True
            self._took(queue, active)
            return probe
        queue.credit -= 1
        self.active = active = active + 1
        if active > self.peak:
            self.peak = active
        return queue.pop()

    def _took(self, queue: LaneQueue, active: int) -> None:
        queue.credit -= 1
        self.active = active + 1
        self.peak = max(self.peak, self.active)

    def other_waits(self, lease: Lease) -> bool:
        """Whether another notification than that of `lease` waits here."""
        return any(queue.others(lease) for queue in self.queues)

    def no_verdict(self) -> None:
        """What was taken last told the gates nothing: if it was their probe, another may go."""
        self.gate.unused()
        if self.binding_gate.unused():
            self.probe_free()

    def wake(self) -> None:
        """Wake as many parked senders as there is work and room for."""
        room = self.limit - self.active
        if not self.idle or room <= 0:
            return
        for _ in range(min(self.queued, room, len(self.idle))):
            sender = self.idle.popleft()
            if not sender.done():
                sender.set_result(None)

    def drain(self) -> Iterator[Item]:
        """Take everything that waits: its gate has closed, or the engine is closing."""
        for queue in self.queues:
            yield from queue.drain()

    def dismiss(self) -> None:
        """Let every parked sender end."""
        self.closing = True
        while self.idle:
            sender = self.idle.popleft()
            if not sender.done():
                sender.set_result(None)
