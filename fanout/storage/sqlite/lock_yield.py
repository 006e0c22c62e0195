"""How one process leaves the write lock to others: decided purely, from times handed in."""

from __future__ import annotations

__all__ = ["LockYield"]

_REMEMBERED = 5.0
_GAP_EVERY = 0.1
_GAP = 0.005
_LONGEST = 0.05


class LockYield:
    """Says for how long the lock stays free after a commit. All times are seconds of a clock that never jumps.

    SQLite's lock has no queue: a waiting process looks again every few milliseconds, and a process that commits back to
    back would starve it. So a process that has lately met another writer leaves the lock free for as long as it held it
    (50 ms at most). And a process that has met none leaves a gap of 5 ms ten times a second, in which a newcomer, which
    looks every 0.5 to 3 ms, gets in.
    """

    __slots__ = ("_gap_at", "_met_at")

    def __init__(self) -> None:
        self._met_at = float("-inf")
        self._gap_at = float("-inf")

    def met(self, now: float) -> None:
        """Another process has committed, or held the lock when we wanted it."""
        self._met_at = now

    def pause(self, now: float, held: float) -> float:
        """Seconds to leave the lock free, having held it for `held`."""
        if now - self._met_at < _REMEMBERED:
            return min(held, _LONGEST)
        if now - self._gap_at >= _GAP_EVERY:
            self._gap_at = now
            return _GAP
        return 0.0
