"""The clock of a database, as the engines that use it go by it."""

from __future__ import annotations

from fanout.core.carried import carried
from fanout.plugin import Clock

__all__ = ["CarriedClock"]

_GOOD_FOR = 30.0
"""Seconds after which the clock is to be read again: a quartz without a time server may be off by 3 ms by then."""
_PRECISE = 0.25
"""Seconds that a reading may have taken at most; after a slower one it is read again at the next occasion."""


class CarriedClock:
    """A `Clock` whose `now` is the database's, carried on by the machine's monotonic clock; the machine's until it was
    `told` once."""

    __slots__ = ("_good_until", "_machine", "_offset", "_other", "awake", "monotonic")

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        self._offset: float | None = None
        self._good_until = 0.0
        self._other = False
        self.monotonic = machine.monotonic
        self.awake = getattr(machine, "awake", None)

    def now(self) -> float:
        """UNIX seconds by the database's clock."""
        offset = self._offset
        return self._machine.now() if offset is None else offset + self.monotonic()

    def told(self, now: float, before: float) -> None:
        """A statement that was sent at `before` (monotonic seconds), and whose answer has just come, read the
        database's clock: `now`."""
        after = self.monotonic()
        self._offset = carried(None if self._other else self._offset, now, before, after)
        self._other = False
        self._good_until = after + _GOOD_FOR if after - before <= _PRECISE else after

    def forget(self) -> None:
        """The next reading is another clock's: no earlier reading bounds it."""
        self._good_until = 0.0
        self._other = True

    @property
    def stale(self) -> bool:
        """Whether it is to be read again."""
        return self._offset is None or self.monotonic() >= self._good_until
