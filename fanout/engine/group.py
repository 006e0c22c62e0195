"""A group: the endpoints of one binding that share connections and fate, its queue, gate and deliveries under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import get_ident
from typing import Protocol

from fanout.core.gate import Gate, GateState
from fanout.core.lanes import WEIGHTS
from fanout.core.limiter import Limiter
from fanout.core.outcome import Outcome
from fanout.core.policy import Policy
from fanout.core.run import Run
from fanout.engine.lane_queue import Item, LaneQueue
from fanout.engine.lease import Lease

__all__ = ["FEW", "SAMPLED", "Group", "GroupRun"]

_OPEN = GateState.OPEN
SAMPLED = 8
"""Of so many answers one tells the limiter how long it took; where no more than so many may be under way, each does."""
FEW = 8
"""A group that may have fewer under way is adjusted at each answer: its connection may just have been proven, and its
capacity grown."""
_STUCK = 1.0
"""Seconds without an answer after which a gateway's deliveries leave the window to others'."""
_CREDIT = tuple(weight * 16 for weight in WEIGHTS)
"""Deliveries that each lane may send per round while others wait: deficit round robin, as between chunks."""


_NONE: deque[Item] = deque(maxlen=0)


class Group:
    """Deliveries that are ready to go, by lane, and those under way. A hung host occupies only its own group."""

    __slots__ = (
        "active",
        "adjusted_at",
        "answers",
        "binding_gate",
        "gate",
        "handed",
        "in_line",
        "limit",
        "limiter",
        "moved_at",
        "name",
        "peak",
        "probe_free",
        "pumping",
        "queued",
        "queues",
        "rank",
        "runs",
        "sampled",
        "seen",
    )

    def __init__(
        self,
        name: str,
        policy: Policy,
        binding_gate: Gate,
        probe_free: Callable[[], None] = lambda: None,
        rank: Callable[[Lease, int], int] = lambda lease, position: 0,
        sizes: list[int] | None = None,
    ) -> None:
        self.name = name
        self.probe_free = (
            probe_free  # tells waiting deliveries, in any group or in storage, that the binding's gate takes a probe
        )
        self.rank = rank  # how good a probe a delivery is
        self.gate = Gate(policy)
        self.binding_gate = binding_gate
        self.limiter = Limiter()
        sizes = [0] * len(_CREDIT) if sizes is None else sizes
        self.queued = 0  # deliveries that no sender has taken
        self.queues = tuple(LaneQueue(credit, lane, sizes, self) for lane, credit in enumerate(_CREDIT))
        self.limit = self.sampled = 1  # of so many answers one tells the limiter how long it took
        self.active = 0  # deliveries that were taken and have not ended
        self.runs: dict[GroupRun, None] = {}  # under way, the oldest first
        self.handed = _NONE  # taken, and for the next sender: a transport could not start them
        self.pumping = False  # a turn of the pump is to come
        self.in_line = False  # a sender is to come
        self.answers = 0  # of senders of this group, whichever it was: a lone sender's turns and positions go in step
        self.seen = -1  # answers at the last look whether there are any
        self.moved_at = 0.0
        self.adjusted_at = 0.0  # UNIX seconds: when its limit was last looked at
        self.peak = 0  # the most of them since the limiter was last adjusted

    def stuck(self, monotonic: float) -> bool:
        """Whether deliveries are under way and none has been answered for a second, as far as this was asked."""
        if self.answers != self.seen or not self.active:
            self.seen, self.moved_at = self.answers, monotonic
            return False
        return monotonic - self.moved_at > _STUCK

    def take(self, now: float) -> Item | None:
        """The next delivery, if there is one, the connections have room and both gates admit it."""
        active = self.active
        if active >= self.limit:
            return None
        for queue in self.queues:
            if queue.size and queue.credit > 0:
                break
        else:
            if (queue := self._next_round()) is None:  # type: ignore[assignment]
                return None
        if self.gate.state is not _OPEN or self.binding_gate.state is not _OPEN:
            return self._probe(queue, now)
        queue.credit -= 1
        self.active = active = active + 1  # `claim`, without the call
        if active > self.peak:
            self.peak = active
        return queue.pop()

    def take_run(self, now: float, *, wary: bool) -> tuple[Lease, list[int]] | None:
        """The same with as many of one lease as may go at once; one where a gate is not open or each must be asked
        about (`wary`)."""
        room = self.limit - self.active
        if room <= 0:
            return None
        for queue in self.queues:
            if queue.size and queue.credit > 0:
                break
        else:
            if (queue := self._next_round()) is None:  # type: ignore[assignment]
                return None
        if self.gate.state is not _OPEN or self.binding_gate.state is not _OPEN:
            probe = self._probe(queue, now)
            return None if probe is None else (probe[0], [probe[1]])
        lease, positions = queue.pop_run(min(room, queue.credit), single=wary)
        queue.credit -= len(positions)
        self.claim(len(positions))
        return lease, positions

    def _next_round(self) -> LaneQueue | None:
        """No lane with work has credit left: all have it again. The lane whose turn it is."""
        for queue, credit in zip(self.queues, _CREDIT, strict=True):
            queue.credit = credit
        for queue in self.queues:
            if queue.size:
                return queue
        return None

    def _probe(self, queue: LaneQueue, now: float) -> Item | None:
        """The delivery that is asked whether a gate that is not open may open, where one may go."""
        if not (self.gate.ready(now) and self.binding_gate.ready(now)):
            return None
        self.gate.admits(now)
        self.binding_gate.admits(now)
        lease, position = queue.best(self.rank)
        lease.probe, lease.fresh = position, True
        queue.credit -= 1
        self.claim(1)
        return lease, position

    # -- deliveries under way

    def allow(self, limit: int) -> int:
        """So many may be under way from now on; how many more than before."""
        change, self.limit = limit - self.limit, limit
        # Where few are under way each answer counts, or it would take long to see that more may be.
        self.sampled = SAMPLED if limit > SAMPLED else 1
        return change

    def end_window(self, capacity: int) -> int:
        """The limit that the limiter sets by the answers since it was last asked."""
        limit = self.limiter.adjust(self.peak, max(1, capacity))
        self.peak = self.active
        return limit

    def claim(self, count: int) -> None:
        """So many were taken."""
        self.active = active = self.active + count
        if active > self.peak:
            self.peak = active

    def end(self, count: int) -> None:
        """So many have ended."""
        self.active -= count

    def samples(self, count: int) -> int:
        """So many answers came; how many of them tell the limiter how long they took: one of each `sampled`."""
        answers = self.answers + count
        found = answers // self.sampled - self.answers // self.sampled
        self.answers = answers
        return found

    def hand_over(self, items: Iterable[Item]) -> None:
        """These were taken, and the transport could not start them: they are for the next sender."""
        if self.handed is _NONE:
            self.handed = deque()
        self.handed.extend(items)

    def hold(self) -> None:
        """Nothing more may be sent for now: deliveries that no sender has begun wait at the head of their queue."""
        self.limit = 0
        while self.handed:
            lease, position = self.handed.pop()
            self.end(1)
            self.queues[lease.chunk.lane].put_back(lease, position)

    def other_waits(self, lease: Lease) -> bool:
        """Whether another notification than that of `lease` waits here."""
        return any(queue.others(lease) for queue in self.queues)

    def no_verdict(self) -> None:
        """The delivery that was taken last told the gates nothing: if it was their probe, another may go."""
        self.gate.unused()
        if self.binding_gate.unused():
            self.probe_free()

    def drain(self) -> Iterator[Item]:
        """Take everything that waits: its gate has closed, or the engine is closing."""
        while self.handed:
            self.end(1)
            yield self.handed.popleft()
        for queue in self.queues:
            yield from queue.drain()


class RunOwner(Protocol):
    """The receiver of a run's answers."""

    late: int
    """Answers that came after their delivery was given up, or twice."""
    thread: int
    """The thread of its loop."""

    def take_over(self, call: Callable[..., None], *arguments: object) -> None:
        """Call it in the loop: an answer has come in another thread."""
        ...

    def settle(self, run: Run, accepted: list[int], others: list[tuple[int, Outcome | None]]) -> None:
        """See `Run`."""
        ...


class GroupRun(Run):
    """A run under way: its lease and positions, and its beginning (monotonic seconds)."""

    __slots__ = ("begun", "lease", "of", "owner", "positions")

    def __init__(
        self, owner: RunOwner, of: Group, lease: Lease, positions: Sequence[int], moment: float, begun: float
    ) -> None:
        rows = lease.rows
        first, last = positions[0], positions[-1]
        own = rows[first : last + 1] if last - first == len(positions) - 1 else [rows[each] for each in positions]
        prepared = lease.prepared
        super().__init__(
            prepared.message,
            prepared.ids,
            own,  # type: ignore[arg-type]  # queued deliveries have a row
            owner.settle,
            attempt=lease.chunk.attempt,
            ttl=0 if prepared.once else int(prepared.expires_at - moment),
            fresh=lease.fresh and lease.asks_fresh(first),
        )
        self.owner = owner
        self.of = of
        self.lease = lease
        self.positions = positions
        self.begun = begun

    def accept(self, indices: Sequence[int]) -> None:
        """See `Run`."""
        if get_ident() != self.owner.thread:
            self.owner.take_over(self.accept, [*indices])
            return
        super().accept(indices)

    def answer(self, index: int, outcome: Outcome | None) -> None:
        """See `Run`."""
        if get_ident() != self.owner.thread:
            self.owner.take_over(self.answer, index, outcome)
            return
        super().answer(index, outcome)

    def drop(self, count: int) -> None:
        """See `Run`."""
        super().drop(count)
        self.owner.late += count
