"""The history put in order for the checks: the leases and their workers, the ends in each settlement, and the delivery
of each attempt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fanout.core.records import Settled, Settlement
from fanout.core.states import DOUBT
from fanout.plugin import Accepted, Submission, Unavailable
from fanout_kit.simulation.disk import Call
from fanout_kit.simulation.gateway import Arrival
from fanout_kit.simulation.history import Attempt, Ended, History
from fanout_kit.simulation.world import EPOCH

__all__ = ["SLACK", "Evidence", "Leased", "Violation"]

SLACK = 1e-6
"""Seconds within which two computations of one moment may differ."""

Key = tuple[str, int]
"""(notification, endpoint) of a delivery."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: which check says so, in what way, and at what virtual second if there is one."""

    check: str
    text: str
    at: float | None = None

    def __str__(self) -> str:
        when = "" if self.at is None else f" (at {self.at:.6f})"
        return f"{self.check}: {self.text}{when}"


@dataclass(slots=True)
class Leased:
    """One lease of one chunk: from the commit that granted it to the one that ended it (None: it ran out, or still
    runs).

    `first_open` are the endpoints that were open when it was granted, `open` those that still are. `asked` are the
    virtual seconds at which its holder asked for it or for more of it, successfully. `taken_over` is the commit that
    gave the chunk to the next, `by_an_old_clock` if that one had read the time before the machine's clock was set;
    `lost` says that its holder was told, late, that it no longer has it.
    """

    chunk: int
    epoch: int
    node: str
    notification: str
    attempt: int
    ids: Sequence[int]
    first_open: frozenset[int]
    open: set[int]
    commit: int
    at: float
    wall: float
    asked: list[float]
    until: float
    ended: int | None = None
    taken_over: int | None = None
    by_an_old_clock: bool = False
    lost: bool = False


@dataclass(slots=True)
class Stored:
    """One settlement of one lease, as it was stored or refused."""

    settlement: Settlement
    settled: Settled
    call: Call
    commit: int
    lease: Leased | None


@dataclass(slots=True)
class Evidence:
    """See the module. Built once for all checks."""

    history: History
    leases: list[Leased] = field(default_factory=list)
    settlements: list[Stored] = field(default_factory=list)
    ends: dict[Key, list[Ended]] = field(default_factory=lambda: defaultdict(list))
    attempts: dict[Key, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    arrivals: dict[str, list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    submissions: dict[str, tuple[Submission, int]] = field(default_factory=dict)
    """Each stored new notification, and its commit."""
    receipts: set[str] = field(default_factory=set)
    """Notifications that a caller was told are accepted."""
    pauses: list[Call] = field(default_factory=list)
    """Calls that paused or resumed a notification or a binding, in the order of their commits."""
    oddities: list[Violation] = field(default_factory=list)
    """Faults of leases, found while they were put in order."""
    _beats: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    """Of each worker, its process, when it said last that it lives, and until when."""
    _of_node: dict[tuple[str, str], list[Leased]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        history = self.history
        for attempt in history.attempts:
            self.attempts[attempt.notification, attempt.endpoint].append(attempt)
        for arrival in history.arrivals:
            self.arrivals[arrival.delivery].append(arrival)
        for request in history.requests:
            if request.what == "send" and request.error is None and request.result is not None:
                self.receipts.add(request.result.id)
        latest: dict[int, Leased] = {}
        for commit, call in enumerate(history.calls):
            if call.error is not None or call.skipped:
                continue
            if call.name == "lease":
                self._lease(call, commit, latest)
            elif call.name == "extend":
                self._extend(call, commit, latest)
            elif call.name == "settle":
                self._settle(call, commit, latest)
            elif call.name == "beat":
                self._beats[call.argument(0, "worker").id] = (
                    call.node,
                    call.argument(1, "now"),
                    call.argument(2, "until"),
                )
            elif call.name == "bury":
                self._bury(call, latest)
            elif call.name in ("pause", "resume", "pause_binding", "resume_binding"):
                self.pauses.append(call)
            elif call.name == "put":
                for submission, put in zip(call.argument(0, "submissions"), call.result, strict=True):
                    if put.id == submission.id:
                        self.submissions[put.id] = (submission, commit)

    def _lease(self, call: Call, commit: int, latest: dict[int, Leased]) -> None:
        now = call.more["now"]
        for chunk in call.result:
            before = latest.get(chunk.id)
            still = {id for id, state in zip(chunk.ids, chunk.states, strict=True) if state == 0}
            if before is not None:
                if chunk.epoch <= before.epoch:
                    self._odd("epoch", f"chunk {chunk.id} was leased as epoch {chunk.epoch} after {before.epoch}", call)
                if before.ended is None and before.until > now + SLACK:
                    text = f"chunk {chunk.id} was given to {call.node} while {before.node} held it"
                    self._odd("lease", text, call)
                if before.ended is None:
                    before.taken_over = commit
                    before.by_an_old_clock = now > self.wall(call.at) + SLACK
            lease = latest[chunk.id] = Leased(
                chunk.id,
                chunk.epoch,
                call.node,
                chunk.notification,
                chunk.attempt,
                chunk.ids,
                frozenset(still),
                still,
                commit,
                call.at,
                now,
                [call.asked_at],
                chunk.lease_until,
            )
            self.leases.append(lease)
            self._of_node[call.node, chunk.notification].append(lease)

    def _extend(self, call: Call, commit: int, latest: dict[int, Leased]) -> None:
        lost = set(call.result)
        for chunk, epoch, until in call.argument(0, "leases"):
            lease = latest.get(chunk)
            if chunk in lost:
                self._lose(call.node, chunk, epoch)
            if chunk in lost or lease is None:
                continue
            if lease.epoch != epoch:
                text = (
                    f"{call.node} extended chunk {chunk} as epoch {epoch}, when {lease.node} held it as {lease.epoch}"
                )
                self._odd("fence", text, call)
            elif lease.ended is not None:
                self._odd("fence", f"{call.node} extended chunk {chunk}, whose lease had ended", call)
            else:
                lease.until = until
                lease.asked.append(call.asked_at)

    def _settle(self, call: Call, commit: int, latest: dict[int, Leased]) -> None:
        for settlement, settled in zip(call.argument(0, "settlements"), call.result, strict=True):
            lease = latest.get(settlement.chunk)
            mine = lease if lease is not None and lease.node == call.node else None
            self.settlements.append(Stored(settlement, settled, call, commit, mine))
            if settled.stale:
                self._lose(call.node, settlement.chunk, settlement.epoch)
                continue
            if lease is None or lease.epoch != settlement.epoch:
                held = "nobody" if lease is None else f"{lease.node} as epoch {lease.epoch}"
                text = f"{call.node} settled chunk {settlement.chunk} as epoch {settlement.epoch}, held by {held}"
                self._odd("fence", text, call)
                continue
            for (state, reason), positions in settlement.results.items():
                if state != DOUBT:
                    for position in positions:
                        key = (lease.notification, lease.ids[position])
                        self.ends[key].append(Ended(state, reason, commit, call.at, call.node))
            if settlement.release is not None or self._done(lease, settlement):
                lease.ended = commit

    def _bury(self, call: Call, latest: dict[int, Leased]) -> None:
        """Leases of the buried may be taken over; but only of one that had not been heard of may it be said to be
        dead."""
        now = call.argument(0, "now")
        for worker in call.result:
            node, seen, until = self._beats.pop(worker)
            if now < until - SLACK and seen - now < until - seen - SLACK:
                self._odd(
                    "heartbeat", f"{call.node} buried {node}, which counts as alive for {until - now:.3f} s more", call
                )
            for lease in latest.values():
                if lease.node == node and lease.ended is None:
                    lease.until = min(lease.until, now)

    def _lose(self, node: str, chunk: int, epoch: int) -> None:
        for lease in self.leases:
            if lease.chunk == chunk and lease.epoch == epoch and lease.node == node:
                lease.lost = True

    def _done(self, lease: Leased, settlement: Settlement) -> bool:
        """Whether nothing of the chunk is left with this settlement."""
        gone = {lease.ids[row.position] for row in settlement.retries}
        gone |= {
            lease.ids[position]
            for (state, _), positions in settlement.results.items()
            if state != DOUBT
            for position in positions
        }
        lease.open -= gone
        return not lease.open

    def _odd(self, check: str, text: str, call: Call) -> None:
        self.oddities.append(Violation(check, text, call.at))

    # -- questions

    def lease_of(self, attempt: Attempt) -> Leased | None:
        """The lease under which this attempt was made."""
        found = None
        for lease in self._of_node[attempt.node, attempt.notification]:
            if lease.commit >= attempt.commits:
                break
            if attempt.endpoint in lease.first_open and lease.attempt == attempt.attempt:
                found = lease
        return found

    def set_forward(self, since: float, until: float) -> bool:
        """Whether the machine's clock was set forward in this time, or so shortly before that leases still looked run
        out."""
        return any(since - 2.0 <= when <= until and seconds > 0 for when, seconds in self.history.jumps)

    def out_of_step(self, attempt: Attempt) -> bool:
        """Whether the machine's clock was set forward while the attempt's worker stood still with its lease in hand.

        Then the others find the lease run out and take it over, and its holder, which could not extend it in time,
        learns of that only after it has gone on: deliveries of that time are sent twice, and none of them is settled.
        The same holds where the other stood still between reading the clock and taking over, and the clock was set back
        in between.
        """
        lease = self.lease_of(attempt)
        if lease is not None and lease.by_an_old_clock:
            return True
        since = lease.at if lease is not None else 0.0
        forward = any(since <= when <= attempt.begun and seconds > 0 for when, seconds in self.history.jumps)
        return forward and self.history.lives[attempt.node].stood_still(since, attempt.begun) > 0

    def doubtful(self, attempt: Attempt) -> bool:
        """Whether no process at this end can know if the gateway took the attempt."""
        if attempt.outcome is None:
            return True
        return isinstance(attempt.outcome, Unavailable) and attempt.outcome.sent == "unknown"

    def accepted(self, attempt: Attempt) -> bool:
        """Whether the attempt was told that the gateway took it."""
        return isinstance(attempt.outcome, Accepted)

    def recorded(self, attempt: Attempt) -> bool:
        """Whether its process stored an end of its delivery after it."""
        return any(
            end.node == attempt.node and attempt.ended is not None and end.at >= attempt.ended - SLACK
            for end in self.ends.get((attempt.notification, attempt.endpoint), ())
        )

    def wall(self, at: float) -> float:
        """The machine's clock at a virtual second, in UNIX seconds."""
        return EPOCH + at + sum(seconds for when, seconds in self.history.jumps if when <= at)

    def latest_wall(self, at: float) -> float:
        """The latest time (UNIX seconds) that the machine's clock had shown by the virtual second `at`: it may be set
        back."""
        offset, latest = 0.0, EPOCH
        for when, seconds in self.history.jumps:
            if when > at:
                break
            latest = max(latest, EPOCH + when + offset, EPOCH + when + offset + seconds)
            offset += seconds
        return max(latest, EPOCH + at + offset)

    def nudged(self, binding: str, since: float, until: float) -> bool:
        """Whether an operator asked the workers of a binding, in this time, to try again at once."""
        return any(
            call.name == "resume_binding" and call.argument(1, "binding") == binding and since <= call.at <= until
            for call in self.pauses
        )

    def requests(self, what: str) -> list[Any]:
        """The requests of one kind that were answered without an error."""
        return [r for r in self.history.requests if r.what == what and r.error is None and r.returned is not None]
