"""Clocks that are set, and machines that are suspended: seen once for the whole engine, by comparing clocks."""

from __future__ import annotations

from collections.abc import Callable

from fanout.plugin import Clock

__all__ = ["ClockWatch"]

JUMP = 1.0
"""Seconds by which two clocks must part to count as one that was set, or as a suspend."""


class ClockWatch:
    """How often the wall clock was set (`steps`), and the machine suspended (`suspends`), since this was made. `look`
    finds out.

    A step is the change of the wall clock against the monotonic one, which counts a suspend as time that passed. A
    suspend is the change of that one against the system's clock of time awake (`Clock.awake`, where there is one:
    Linux). Slow slewing adds up to a step.

    An instant of our own that was made before a step backwards, and is not stored yet, would last longer by that: each
    of `heard` is called with the step's seconds, and `back` is the sum of all, for instants on their way to storage. A
    step forwards makes an instant last less, as it does with stored ones.
    """

    __slots__ = ("_asleep", "_clock", "_wall", "back", "heard", "set_back", "steps", "suspends")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.steps = self.suspends = 0
        self.set_back = False
        """Whether the last step was backwards."""
        self.back = 0.0
        self.heard: list[Callable[[float], None]] = []
        self.begin()

    def begin(self) -> None:
        """The present readings of the clocks are the reference: an earlier difference, until a database's clock was
        known perhaps, is no step."""
        self._wall = self._clock.now() - self._clock.monotonic()
        self._asleep = self._slept()

    def look(self) -> int:
        """Read the clocks; how many steps there have been so far."""
        wall = self._clock.now() - self._clock.monotonic()
        step = wall - self._wall
        if abs(step) > JUMP:
            self.set_back = step < 0.0
            self._wall = wall
            self.steps += 1
            if step < 0.0:
                self.back -= step
                for each in self.heard:
                    each(-step)
        asleep = self._slept()
        if asleep - self._asleep > JUMP:
            self.suspends += 1
        self._asleep = asleep
        return self.steps

    def _slept(self) -> float:
        awake: Callable[[], float] | None = getattr(self._clock, "awake", None)
        return 0.0 if awake is None else self._clock.monotonic() - awake()
