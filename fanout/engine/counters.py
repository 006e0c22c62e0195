"""An engine's counts and state as plain numbers, for its observers: `fanout.metrics` and tests.

The counters grow by whole settlements, a few times a second for each lease, never by single deliveries. `observe` reads
everything else from the engine at the moment it is called; nothing is kept for it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fanout.config import ConfigState
from fanout.core.model import LANES
from fanout.core.records import Settlement
from fanout.core.states import DOUBT, DeliveryState

if TYPE_CHECKING:
    from fanout.engine.lease import Lease
    from fanout.engine.ports import Binding

__all__ = ["BindingView", "Counters", "EngineView", "Histogram", "Reasons", "Tally", "due_at"]

_REASONS = 48
_REASON = re.compile(r"(?=.{1,64}$)[A-Za-z][A-Za-z0-9_.:/()'-]{0,31}(?: [A-Za-z0-9_.:/()'-]{1,32}){0,7}")
_NUMBER = re.compile(r"[0-9]{6}")
_LAG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
_COMMIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Histogram:
    """How many values were at most each bound. `counts` has one more than `bounds`: the values above them all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """`times` values of this size."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Reasons:
    """At most 48 different reasons, the first that come; every other is ``other``.

    A reason may be the gateway's own word, and a Web Push host may be a stranger's: so a reason that does not look like
    one (too long, a number in it, characters of an address) is ``other`` too.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: set[str] = {""}

    def name(self, reason: str) -> str:
        """The reason itself, or ``other``."""
        if reason in self._known:
            return reason
        if len(self._known) > _REASONS or not _REASON.fullmatch(reason) or _NUMBER.search(reason):
            return "other"
        self._known.add(reason)
        return reason


class Counters:
    """The settled deliveries of one binding of this engine since it was opened. Everything only grows.

    `outcomes` counts deliveries that ended, by (state, reason). `retries` counts those that left for a row of their
    own, by (word of the wait, reason). `released` counts leases that were given back with open deliveries, by the
    word of their wait. `stale` counts leases that another worker had taken over. `lag` has, for each lane, the seconds
    from when an accepted delivery was due until its acceptance was stored. `bytes` adds up the payloads of all
    attempts, as the gateways count them.
    """

    __slots__ = ("_reasons", "attempts", "bytes", "lag", "outcomes", "released", "retries", "stale")

    def __init__(self) -> None:
        self._reasons = Reasons()
        self.attempts = 0
        self.bytes = 0
        self.outcomes: dict[tuple[str, str], int] = {}
        self.retries: dict[tuple[str, str], int] = {}
        self.released: dict[str, int] = {}
        self.stale = 0
        self.lag = tuple(Histogram(_LAG) for _ in LANES)

    def settled(self, settlement: Settlement, *, lane: int, size: int, due_at: float, now: float) -> None:
        """One settlement was stored at `now`; its deliveries had been due at `due_at` (UNIX seconds), of `size` bytes
        each."""
        self.attempts += settlement.attempts
        self.bytes += settlement.attempts * size
        for (state, reason), positions in settlement.results.items():
            if state == DOUBT:
                continue
            key = (state, self._reasons.name(reason))
            self.outcomes[key] = self.outcomes.get(key, 0) + len(positions)
            if state == DeliveryState.ACCEPTED:
                self.lag[lane].observe(max(0.0, now - due_at), len(positions))
        for row in settlement.retries:
            key = (row.waiting, self._reasons.name(row.reason))
            self.retries[key] = self.retries.get(key, 0) + 1
        if settlement.release is not None:
            waiting = settlement.release.waiting
            self.released[waiting] = self.released.get(waiting, 0) + 1


class Tally:
    """The counters of one engine. `accepted` counts notifications by app, `unexpanded` those that expired before their
    audience was counted, `commits` the seconds that storing results took."""

    __slots__ = ("accepted", "bindings", "commits", "unexpanded")

    def __init__(self) -> None:
        self.bindings: dict[tuple[str, str], Counters] = {}
        self.accepted: dict[str, int] = {}
        self.unexpanded: dict[str, int] = {}
        self.commits = Histogram(_COMMIT)

    def of(self, app: str, binding: str) -> Counters:
        """The counters of one binding."""
        counters = self.bindings.get((app, binding))
        if counters is None:
            counters = self.bindings[app, binding] = Counters()
        return counters

    def put(self, app: str, notifications: int) -> None:
        """So many notifications were accepted."""
        self.accepted[app] = self.accepted.get(app, 0) + notifications

    def expired(self, unexpanded: Mapping[str, int]) -> None:
        """So many notifications of these apps expired before they were expanded."""
        for app, count in unexpanded.items():
            self.unexpanded[app] = self.unexpanded.get(app, 0) + count

    def settled(self, state: Binding, lease: Lease, settlement: Settlement, *, stale: bool) -> None:
        """One settlement was stored, or refused as stale."""
        counters = self.of(state.app, state.binding)
        if stale:
            counters.stale += not lease.lost
            return
        size, due = lease.prepared.message.size, due_at(state, lease)
        counters.settled(settlement, lane=lease.chunk.lane, size=size, due_at=due, now=state.clock.now())


def due_at(state: Binding, lease: Lease) -> float:
    """When the lease's notification was due, in UNIX seconds: its expiry counts from there."""
    return lease.prepared.expires_at - (lease.prepared.notification.ttl or state.policy.zero_ttl_grace)


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingView:
    """How one binding stands.

    `gate` is the state of the binding's gate; `group_gates` and `topic_gates` say how many groups' and topics' gates
    are in each state, and `breakers` how many of all of them are closed until an operator mends something. `queued` has
    deliveries in memory by lane, `oldest` for each lane the seconds since the oldest of them was due. `under_way` are
    sends without an outcome; `limit` is how many there may be, over all groups, and `capacity` how many the connections
    would take. `budget` is in retries.
    """

    app: str
    binding: str
    gate: str
    group_gates: Mapping[str, int]
    topic_gates: Mapping[str, int]
    breakers: int
    paused: bool
    queued: Sequence[int]
    oldest: Sequence[float]
    under_way: int
    limit: int
    capacity: int
    budget: float
    leases: int
    faults: int
    late: int
    counters: Counters
    connections: Mapping[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """How an engine stands, at `now` (UNIX seconds). `stuck`: it sends nothing, because results cannot be stored.
    `config`: changes of its configuration. `trouble`: the kind of call that storage refuses it at present
    (`patience.Trouble.kind`), and for how long."""

    now: float
    apps: Sequence[str]
    bindings: Sequence[BindingView]
    accepted: Mapping[str, int]
    unexpanded: Mapping[str, int]
    commits: Histogram
    stuck: bool
    trouble: str
    trouble_seconds: float
    config: ConfigState
