"""A limit of events per second: a token bucket. Pure."""

from __future__ import annotations

__all__ = ["Rate"]


class Rate:
    """At most `burst` at once, and `per_second` in the long run. Full at the start."""

    __slots__ = ("_at", "_level", "burst", "per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self.burst = burst
        self._level = burst
        self._at = 0.0

    def take(self, now: float, n: int = 1) -> float:
        """Take `n` at `now` (seconds, of a clock that does not go back): 0.0 if they were there, else after how many
        seconds they will be. Nothing is taken then. More than `burst` at once count as `burst`, so that they are not
        refused for ever."""
        n = min(n, int(self.burst)) or 1
        level = min(self.burst, self._level + max(0.0, now - self._at) * self.per_second)
        self._at = now
        if level >= n:
            self._level = level - n
            return 0.0
        self._level = level
        return (n - level) / self.per_second

    def wait(self, now: float) -> float:
        """After how many seconds one will be there, and 0.0 where it is. Nothing is taken."""
        level = min(self.burst, self._level + max(0.0, now - self._at) * self.per_second)
        return max(0.0, 1 - level) / self.per_second
