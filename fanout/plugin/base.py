"""The common parts of both contracts: their level, and the clock."""

from __future__ import annotations

from typing import Protocol

__all__ = ["API", "OLDEST_TRANSPORT", "Clock"]

API = 2
"""The level of the contracts in this module. A descriptor states the level that it was written for.

Level 2: a storage has parts (`Storage`), and `extend` a deadline for each lease; a transport may have `start`.
"""
OLDEST_TRANSPORT = 1
"""The lowest level of a transport that is used as it is: later additions are optional."""


class Clock(Protocol):
    """Where the shell gets its time from; tests hand in their own."""

    def now(self) -> float:
        """The wall clock.

        Returns:
            UNIX seconds: the times that are stored, sent and compared with other machines' times.
        """
        ...

    def monotonic(self) -> float:
        """The clock of deadlines and durations.

        Returns:
            Seconds that never jump. Those for which the machine was suspended count, where that can be known.
        """
        ...

    # A clock whose `monotonic` counts a suspend may also have `awake()`: seconds that never jump and stand still in a
    # suspend.
