"""Time that stands still until it is told to move."""

from __future__ import annotations

__all__ = ["VirtualClock"]


class VirtualClock:
    """A `Clock` for tests. `now` starts at the UNIX seconds given (a moment in January 2027); `monotonic` starts at
    0."""

    __slots__ = ("_monotonic", "_now")

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        """UNIX seconds.

        Returns:
            The time of the wall clock.
        """
        return self._now

    def monotonic(self) -> float:
        """Seconds since the clock was made, as advanced.

        Returns:
            The time of the monotonic clock.
        """
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, on both scales.

        Args:
            seconds: The length of time, in seconds.

        Raises:
            ValueError: It is negative: use `step` for that.

        Example:
            ```python
            clock = VirtualClock()
            clock.advance(60)
            assert clock.monotonic() == 60
            ```
        """
        if seconds < 0:
            raise ValueError("Time does not pass backwards: `step` moves the wall clock alone.")
        self._now += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back, as a time server does; `monotonic` does not notice.

        Args:
            seconds: The step of the clock, in seconds.

        Example:
            ```python
            clock = VirtualClock()
            clock.step(-3600)
            assert clock.monotonic() == 0
            ```
        """
        self._now += seconds
