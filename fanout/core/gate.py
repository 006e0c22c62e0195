"""The gate of a scope (a group, a binding): open, closed until a time, or probing with one delivery.

            failure that closes           time reached            probe succeeds
OPEN ---------------------------> CLOSED --------------> PROBING ----------------> OPEN
                                    ^                       |
                                    +----- probe fails -----+
"""

from __future__ import annotations

import random
from enum import StrEnum

from fanout.core.policy import Policy, backoff
from fanout.core.states import Waiting

__all__ = ["Gate", "GateState"]

_STREAK = 16
"""Failures in a row, without one success, that close a gate although each alone would have been the endpoint's affair."""


class GateState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    PROBING = "probing"


class Gate:
    """Whether a scope takes deliveries. All times are UNIX seconds, given by the caller."""

    __slots__ = ("_policy", "closures", "probe_until", "reason", "state", "streak", "until", "waiting")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.streak = 0
        self.state = GateState.OPEN
        self.until = 0.0
        self.probe_until = 0.0
        self.closures = 0
        self.reason = ""
        self.waiting = Waiting.GATE

    @property
    def is_open(self) -> bool:
        """Whether every delivery may go."""
        return self.state is GateState.OPEN

    def shut(self, now: float) -> bool:
        """Whether nothing may go before `until`, which is still to come."""
        return self.state is GateState.CLOSED and now < self.until

    def ready(self, now: float) -> bool:
        """Whether `admits` would say yes, without becoming the probe."""
        return (
            self.state is GateState.OPEN
            or (self.state is GateState.CLOSED and now >= self.until)
            or (self.state is GateState.PROBING and now >= self.probe_until)
        )

    def admits(self, now: float) -> bool:
        """Whether one delivery may go now. Past the time of a closed gate, the first to ask is the probe; the rest wait for it.

        A probe that never reports is replaced after two requests' deadlines, so that a lost one cannot park the scope for ever.
        """
        if self.state is GateState.OPEN:
            return True
        if not self.ready(now):
            return False
        self.state = GateState.PROBING
        self.probe_until = now + 2 * self._policy.request_timeout
        return True

    def opens_at(self, now: float) -> float:
        """When it is worth asking again: the time of a closed gate, or a moment from now while a probe is out."""
        if self.state is GateState.CLOSED:
            return max(self.until, now)
        return now if self.state is GateState.OPEN else min(self.probe_until, now + self._policy.backoff_base)

    def succeeded(self) -> bool:
        """A delivery got through (or the gateway at least answered it). True if that opened the gate."""
        self.streak = 0
        if self.state is GateState.PROBING:
            self.state = GateState.OPEN
            self.closures = 0
            return True
        return False

    def failed(self, now: float, rng: random.Random, reason: str) -> bool:
        """One delivery met an endpoint-sized failure. True if it was one too many in a row, and the gate closed."""
        self.streak += 1
        if self.state is GateState.PROBING or self.streak >= _STREAK:
            return self.close(now, rng, reason=reason)
        return False

    def close(
        self,
        now: float,
        rng: random.Random,
        *,
        reason: str,
        after: float | None = None,
        waiting: Waiting = Waiting.GATE,
    ) -> bool:
        """Close for `after` seconds, or for a jittered back-off that doubles with each closure. False if it was closed already.

        An already closed gate is only ever moved to a later time, by a gateway that named one.
        """
        if self.state is GateState.CLOSED and now < self.until:
            if after is not None and now + after > self.until:
                self.until = now + after
            return False
        self.closures += 1
        if after is None:
            base = self._policy.backoff_base
            # At least half of the ceiling: a gate with full jitter could reopen at once and let the whole window through.
            ceiling = min(self._policy.backoff_cap, base * 2.0 ** min(self.closures - 1, 30))
            after = ceiling / 2 + backoff(self.closures, base=base / 2, cap=self._policy.backoff_cap / 2, rng=rng)
        self.state = GateState.CLOSED
        self.until = now + after
        self.reason = reason
        self.waiting = waiting
        self.streak = 0
        return True
