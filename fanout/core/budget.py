"""The retry budget of a binding: it keeps retries from multiplying the load on a gateway that is failing already.

A token bucket. Each success puts in a part of a token, each retry takes one out; besides, tokens trickle in slowly,
so that waiting deliveries are still tried when no new one succeeds. The idea is gRPC's (proposal A6) and Finagle's; but
where a remote call fails fast on an empty budget, a delivery waits. So within any span of time

    attempts <= first attempts + ratio x successes + burst + floor x seconds

as long as more than a tenth of the attempts fail. Below that the gateway is well, and a retry costs nothing: the
retries that an hour of trouble left behind would otherwise trickle out for days, long after the gateway has come back.
"""

from __future__ import annotations

__all__ = ["RetryBudget"]

_TOO_MANY = 0.1
"""The part of the attempts that may fail before retries cost something; the limiter's figure too."""
_WINDOW = 24
"""Attempts by which that is judged: at the trickle's rate, half a minute until a gateway that has come back is
believed."""


class RetryBudget:
    """Tokens for retries: `ratio` of one for each success, `floor` each second, never more than `burst`, which it
    starts with."""

    __slots__ = ("_at", "_bad", "_burst", "_floor", "_good", "_ratio", "tokens")

    def __init__(self, *, ratio: float, burst: float, floor: float) -> None:
        self._ratio = ratio
        self._burst = burst
        self._floor = floor
        self.tokens = burst
        self._at = 0.0
        self._good = 0.0
        self._bad = 0.0

    def deposit(self, successes: int) -> None:
        """So many deliveries were accepted."""
        self._good += successes
        self.tokens = min(self._burst, self.tokens + successes * self._ratio)

    def failed(self) -> None:
        """One attempt failed, and not because of its endpoint."""
        self._bad += 1.0

    @property
    def failing(self) -> bool:
        """Whether so many of the latest attempts failed that retries cost something."""
        total = self._good + self._bad
        if total > _WINDOW:
            self._good *= _WINDOW / total
            self._bad *= _WINDOW / total
            total = _WINDOW
        return self._bad > _TOO_MANY * total

    def take(self, now: float) -> bool:
        """Whether one retry may be made at `now` (seconds of any clock that does not jump): a token, while the gateway
        is failing."""
        if self._at:
            self.tokens = min(self._burst, self.tokens + max(0.0, now - self._at) * self._floor)
        self._at = now
        if not self.failing:
            return True
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
