"""The gate of a scope (a group, a topic, a binding): its circuit breaker, and how it takes the load on again.

            failure that closes           time reached            probes succeed
OPEN ---------------------------> CLOSED --------------> PROBING ----------------> OPEN, ramping up
                                    ^                       |
                                    +----- a probe fails ---+

Half-open, it lets one probe go; when that has succeeded, two more at once; and opens when all three have. Then the
share of its capacity that may be used starts at a tenth and doubles with each interval, so that a gateway that has just
come back is not overloaded again by all deliveries that waited for it (the second wave of a metastable failure: Huang
et al., OSDI 2022).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum

from fanout.core.policy import Policy
from fanout.core.span import ends_at, outlived
from fanout.core.states import Waiting
from fanout.core.witness import FAULT, Witness, Witnesses

__all__ = ["Gate", "GateState"]

_STREAK = 16
"""Failures in a row, without one success, that close a gate although each alone would have been the endpoint's
affair."""
_LOSS = 8
"""The number that a lost connection counts among them, however many requests it ended."""
_RAMP_FROM = 0.1
_PROBES = 3
_KNOCKS = 32
"""Gates of one binding that may be probed at that pace together: more take turns at it."""
_PACE = 10.0
"""Bases of the back-off that a gateway which answers, but fails, is left alone for at most at first."""
_STAY = 300.0
"""Seconds for which waiting deliveries stay in storage at most, where the gate itself is probed all the time."""


class GateState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    PROBING = "probing"


@dataclass(slots=True, eq=False, repr=False)
class Gate:
    """Whether a scope takes deliveries. All times are UNIX seconds, given by the caller."""

    _policy: Policy
    streak: int = field(default=0, init=False)
    state: GateState = field(default=GateState.OPEN, init=False)
    since: float = field(default=0.0, init=False)  # closed from when to when
    until: float = field(default=0.0, init=False)
    probed_at: float = field(default=0.0, init=False)
    probe_until: float = field(default=0.0, init=False)
    closures: int = field(default=0, init=False)
    _away_since: float = field(default=0.0, init=False)  # when the first of these closures was
    reason: str = field(default="", init=False)
    waiting: Waiting = field(default=Waiting.GATE, init=False)
    _out: int = field(default=0, init=False)  # probes without a verdict
    _proven: int = field(default=0, init=False)  # probes that succeeded
    ramp_since: float = field(default=0.0, init=False)
    """The end of the last outage, while less than all of the capacity may be used; else 0."""
    _stay: float = field(default=0.0, init=False)  # seconds, beyond `until`, that all but the next probe wait
    _causes: set[str] = field(default_factory=set, init=False)  # lost connections among the failures in a row
    _failures: Witnesses = field(default_factory=Witnesses, init=False)  # of failures in a row
    witnesses: Witnesses = field(default_factory=Witnesses, init=False)
    """The witnesses whose word has closed it, or would with another's."""
    heard_at: float = field(default=0.0, init=False)
    """For the caller: when it last failed."""
    mark: int = field(default=0, init=False)
    """For the caller: how many acceptances there had been at the last accusation."""
    said: tuple[str, float] = field(default=("", 0.0), init=False)
    """For the caller: the reason that the log was last told, and when."""

    @property
    def is_open(self) -> bool:
        """Whether every delivery may go."""
        return self.state is GateState.OPEN

    def shut(self, now: float) -> bool:
        """Whether nothing may go before `until`, which is still to come."""
        return self.state is GateState.CLOSED and not outlived(self.since, self.until, now)

    def ready(self, now: float) -> bool:
        """Whether `admits` would say yes, without becoming a probe."""
        if self.state is GateState.OPEN:
            return True
        if self.state is GateState.CLOSED:
            return outlived(self.since, self.until, now)
        return self._out < self._allowed or outlived(self.probed_at, self.probe_until, now)

    @property
    def _allowed(self) -> int:
        """Probes that may be out at once: one, until that has shown that the gateway is there."""
        return 1 if self._proven == 0 else _PROBES - self._proven

    def admits(self, now: float) -> bool:
        """Whether one delivery may go now. Past the time of a closed gate, the first to ask is the probe; the rest wait
        for it.

        Probes that never report are replaced after two requests' deadlines, so that a lost one cannot park the scope
        for ever.
        """
        if self.state is GateState.OPEN:
            return True
        if not self.ready(now):
            return False
        if self.state is GateState.CLOSED:
            self.state = GateState.PROBING
            self._out = self._proven = 0
        elif outlived(self.probed_at, self.probe_until, now):
            self._out = 0
        self._out += 1
        self.probed_at = now
        self.probe_until = now + 2 * self._policy.request_timeout
        return True

    def unused(self) -> bool:
        """A delivery that was admitted said nothing about this scope after all: it was not sent, or the answer spoke of
        another scope.

        If it was a probe, another may go: whether one may. Without this, one expired delivery would park everything for
        two requests' deadlines.
        """
        if self.state is not GateState.PROBING:
            return False
        self._out = max(0, self._out - 1)
        return True

    def opens_at(self, now: float) -> float:
        """When the next probe may go, if no report comes before: the time of a closed gate, or that by which a probe
        that is out is lost."""
        if self.state is GateState.CLOSED:
            return ends_at(self.since, self.until, now)
        return now if self.ready(now) else ends_at(self.probed_at, self.probe_until, now)

    def resumes_at(self, now: float) -> float:
        """When waiting deliveries are due again: as `opens_at`, and later where the next probe alone comes soon
        (`close`, `knocks`)."""
        at = self.opens_at(now)
        return at + self._stay if self.state is GateState.CLOSED else at

    def share(self, now: float) -> float:
        """The part of the capacity that may be used, above 0 and at most 1: less than 1 for some intervals after an
        outage."""
        if not self.ramp_since:
            return 1.0
        interval = self._policy.ramp
        if now < self.ramp_since:
            self.ramp_since = now  # the clock was set back
        passed = now - self.ramp_since
        share: float = _RAMP_FROM * 2.0 ** min(passed / interval if interval else 60.0, 60.0)
        if share >= 1.0:
            self.ramp_since = 0.0
            return 1.0
        return share

    def succeeded(self, now: float) -> bool:
        """A delivery got through (or the gateway at least answered it). True if that opened the gate."""
        self.streak = 0
        if self.state is not GateState.PROBING:
            return False
        self._out = max(0, self._out - 1)
        self._proven += 1
        if self._proven < _PROBES:
            return False
        self.state = GateState.OPEN
        self.closures = 0
        self.ramp_since = now
        self.witnesses.clear()
        return True

    def failed(
        self, now: float, rng: random.Random, reason: str, witness: Witness | None = None, *, others: bool = False
    ) -> bool:
        """One delivery met an endpoint-sized failure. True if it was one too many in a row, and the gate closed.

        With a `witness` it closes only on the word of two independent witnesses, and all requests that one connection
        ended count once. `others`: another notification waits, or was accepted lately.
        """
        if witness is None:
            self.streak += 1
            if self.state is GateState.PROBING or self.streak >= _STREAK:
                return self.close(now, rng, reason=reason)
            return False
        if witness.cause == FAULT:
            return False
        if self.state is not GateState.OPEN:
            agreed = self.accused(now, witness, others=others)
            return agreed and self.state is GateState.PROBING and self.close(now, rng, reason=reason)
        self._begin_anew()
        agreed = self._failures.hear(witness, others=others)
        if not witness.cause:
            self.streak += 1
        elif witness.cause not in self._causes:
            self._causes.add(witness.cause)
            self.streak += _LOSS
        if not agreed or self.streak < _STREAK:
            return False
        self.witnesses, self._failures = self._failures, Witnesses()
        return self.close(now, rng, reason=reason)

    def blamed(self, now: float, rng: random.Random, reason: str, witness: Witness) -> bool:
        """One delivery of the notification that this gate is for failed, while others do not. True if the gate closed.

        All requests that one connection ended count once: the notification happened to be under way on it.
        """
        if witness.cause and witness.cause != FAULT:
            if witness.cause in self._causes:
                return False
            self._causes.add(witness.cause)
        return self.failed(now, rng, reason)

    def accused(self, now: float, witness: Witness, *, others: bool) -> bool:
        """One delivery's answer spoke of all this scope: whether that is enough to hold it, closed as it may be
        already.

        While it is open, two independent witnesses must have said so since it last accepted anything. When it is
        probed, they have: then one that was not asked before confirms it, unless one notification is behind all of it
        and there are others.
        """
        witnesses = self.witnesses
        if self.state is GateState.OPEN:
            self._begin_anew()
            self.streak += 1
            return witnesses.hear(witness, others=others)
        asked_before = witnesses.heard(witness.endpoint)
        witnesses.hear(witness, others=others)
        if self.shut(now):
            return True
        return not asked_before and not (others and witnesses.sole == witness.notification)

    def _begin_anew(self) -> None:
        """Forget the answers before the last acceptance, which the senders make known by setting `streak` to 0."""
        if not self.streak:
            self.witnesses.clear()
            self._failures.clear()
            self._causes.clear()

    def relent(self, now: float) -> None:
        """A delivery that the verdict was not about is there: it is the next probe. The witnesses stay."""
        self.state = GateState.CLOSED
        self.until, self._stay = now, 0.0

    def refuted(self) -> None:
        """One notification's fault closed it, and another has been accepted: open at once."""
        self.state = GateState.OPEN
        self.closures = 0
        self.streak = 0
        self.ramp_since = 0.0
        self.witnesses.clear()

    def close(
        self,
        now: float,
        rng: random.Random,
        *,
        reason: str,
        after: float | None = None,
        waiting: Waiting = Waiting.GATE,
        knocks: int = 0,
    ) -> bool:
        """Close for `after` seconds, or for a jittered back-off that doubles with each closure, up to ten seconds or an
        eighth of the outage, whichever is longer. False if it was closed already.

        An already closed gate is only ever moved to a later time, by a gateway that named one.

        `knocks`: no connection came about, and so many gates of the binding may have that in common. To try again
        burdens no gateway that is not there, so one delivery does within a second (`policy.backoff_base`), however
        often it has failed. All others wait as long as the gateway has been away already, and five minutes at most: a
        few writes in storage for an outage of any length, and none waits long after a short one.
        """
        if self.shut(now):
            if after is not None and now + after > self.opens_at(now):
                self.since, self.until, self._stay = now, now + after, 0.0
            return False
        if not self.closures or now < self._away_since:  # the latter where the clock was set back
            self._away_since = now
        base, self._stay = self._policy.backoff_base, 0.0
        if knocks:
            # One closure, however often it is tried: another failure after that is the second, and closes it briefly.
            self.closures = max(1, self.closures)
            away, pace = now - self._away_since, base * max(1.0, knocks / _KNOCKS)
            after = min(rng.uniform(pace / 2, pace), max(rng.uniform(base / 2, base), away), self._policy.backoff_cap)
            self._stay = max(0.0, min(away, _STAY) - after)
        else:
            self.closures += 1
        if after is None:
            # At least half of the ceiling: a gate with full jitter could reopen at once and let the whole window
            # through.
            away = max(_PACE * base, (now - self._away_since) / 8)
            ceiling = min(self._policy.backoff_cap, away, base * 2.0 ** min(self.closures - 1, 30))
            after = ceiling / 2 + rng.uniform(0.0, ceiling / 2)
        self.state = GateState.CLOSED
        self.since, self.until = now, now + after
        self.reason = reason
        self.waiting = waiting
        self.streak = 0
        self.ramp_since = 0.0
        return True

    def reset(self, now: float) -> bool:
        """An operator says that the cause is mended: the next delivery is a probe. False if the gate was open
        anyway."""
        if self.state is GateState.OPEN:
            return False
        self.state = GateState.CLOSED
        self.since = self.until = now
        self.closures = 0
        self.witnesses.clear()
        return True
