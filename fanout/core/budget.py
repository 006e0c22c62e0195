"""The retry budget of a binding: what keeps retries from multiplying the load on a gateway that is failing already.

A token bucket. Each success puts in a part of a token, each retry takes one out; besides, tokens trickle in slowly, so that what
waits is still tried when nothing new succeeds. The idea is gRPC's (proposal A6) and Finagle's; but where a remote call fails
fast on an empty budget, a delivery waits. So within any span of time

    attempts <= first attempts + ratio x successes + burst + floor x seconds
"""

from __future__ import annotations

__all__ = ["RetryBudget"]


class RetryBudget:
    """Tokens for retries: `ratio` of one for each success, `floor` each second, never more than `burst`, which it starts with."""

    __slots__ = ("_at", "_burst", "_floor", "_ratio", "tokens")

    def __init__(self, *, ratio: float, burst: float, floor: float) -> None:
        self._ratio = ratio
        self._burst = burst
        self._floor = floor
        self.tokens = burst
        self._at = 0.0

    def deposit(self, successes: int) -> None:
        """So many deliveries were accepted."""
        self.tokens = min(self._burst, self.tokens + successes * self._ratio)

    def take(self, now: float) -> bool:
        """A token for one retry at `now` (seconds of any clock that does not jump), if there is one."""
        if self._at:
            self.tokens = min(self._burst, self.tokens + max(0.0, now - self._at) * self._floor)
        self._at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
