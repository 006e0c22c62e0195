"""Deliveries that wait in storage for a gate that has opened: brought forward in parts, until none is left. Pure.

Their times were made during the outage, by the length of it: left alone, some would come minutes after the end.
"""

from __future__ import annotations

from math import inf

__all__ = ["PART", "Rescheduling"]

PART = 1000
"""Chunks, and retry rows, that are made due at once."""
_PAUSE = 0.25
"""Seconds between two parts."""
_GRACE = 1.0
"""Seconds after the opening in which a delivery given back before may still be on its way into storage."""
_APART = 5.0
"""Seconds between two beginnings: of many hosts one may open all the time, and the others' work is moved in vain."""


class Rescheduling:
    """Of one binding. All times are the engine's UNIX seconds, given by the caller."""

    __slots__ = ("_before", "_begun", "_next")

    def __init__(self) -> None:
        self._before = 0.0
        self._begun = -inf
        self._next = inf

    def opened(self, now: float) -> None:
        """A gate has opened."""
        self._before = now + _GRACE
        if self._next == inf:
            # A beginning that lies ahead was made by a clock that has been set back since.
            self._next = now if self._begun > now else max(now, self._begun + _APART)
            self._begun = self._next

    def wait(self, now: float) -> float:
        """Seconds until the next part; infinite where nothing is to be brought forward."""
        return max(0.0, min(self._next - now, _APART)) if self._next < inf else inf

    def part(self, now: float) -> float:
        """The time before which the deliveries of a part that is due were given back; 0 where none is due."""
        return self._before if self._next <= now else 0.0

    def moved(self, count: int, now: float) -> None:
        """So many chunks and retry rows were made due."""
        self._next = inf if not count and now >= self._before else now + (_PAUSE if count else _GRACE)
