"""Time that stands still until it is told to move."""

from __future__ import annotations

__all__ = ["VirtualClock"]


class VirtualClock:
    """A `Clock` for tests. `now` starts at the UNIX seconds given (a moment in January 2027); `monotonic` starts at 0."""

    __slots__ = ("_monotonic", "_now")

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        """UNIX seconds."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the clock was made, as advanced."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, on both scales. Raises `ValueError` for a negative number: use `step` for that."""
        if seconds < 0:
            raise ValueError("Time does not pass backwards: `step` moves the wall clock alone.")
        self._now += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back, as a time server does; `monotonic` does not notice.

        Args:
            seconds: The step of the clock, in seconds.
        """
        self._now += seconds
