"""The project's rate, kept to before Google has to say so. Pure: a token bucket that warms up, with the time as an
argument.

Google counts 600,000 messages a minute per project, and asks that traffic go from nothing to its peak over a minute at
least ("Throttling and quotas", "Best practices when sending FCM messages at scale").
"""

from __future__ import annotations

import math

__all__ = ["Shaper"]

_COLD = 1 / 60
"""The part of the rate at which a cold start begins: the level of a ramp of a minute after its first second."""
_WINDOW = 0.25
"""Seconds over which it is seen how much of the rate is used."""
_LEAST_BURST = 100.0
"""Messages that may always go at once. Otherwise a second's worth of the present rate may."""
_PART_BURST = 10.0
"""The same for a part of the rate, however small."""
_RESERVE = 0.01
"""The part of the rate that is asked for while nothing is sent, so that the next message need not wait for a grant."""
_UNTOLD = -1.0
"""Without a part of the rate: nothing was reserved, ask again in a second."""


class Shaper:
    """`limit` in messages per second when warm, `ramp` the seconds from cold to warm (0: always warm). Times are
    monotonic seconds.

    Heat grows from 0 to 1 while more than half of the present rate is used, and sinks while less is: a steady trickle
    stays cold, and a sender at some rate may send at twice of it at once, and at the limit after the ramp.

    A project's rate may be divided among processes: `resize` sets the part of this one, `demand` tells the part that it
    could use.
    """

    __slots__ = (
        "_at",
        "_burst",
        "_credit",
        "_heat",
        "_limit",
        "_ramp",
        "_short",
        "_since",
        "_taken",
        "_used",
        "_whole",
        "rate",
    )

    def __init__(self, limit: float, ramp: float, now: float) -> None:
        self._limit = self._whole = limit
        self._used = 0  # since `demand` was last asked, without those taken in this window
        self._short = False
        self._ramp = ramp
        self._at = self._since = now
        self._taken = 0
        self._warm(0.0 if ramp else 1.0)
        self._credit = self._burst

    def take(self, now: float, longest: float) -> float:
        """Reserve one message; the seconds to wait for its turn, 0 for none.

        Where that would be more than `longest`, nothing is reserved, and the answer is negative: minus the seconds to
        wait.
        """
        if now > self._at:
            credit = self._credit + (now - self._at) * self.rate
            self._credit = credit if credit < self._burst else self._burst
            self._at = now
            if now - self._since >= _WINDOW:
                self._look(now)
        credit = self._credit - 1.0
        if credit < 0:
            self._short = True
            if not self.rate:
                return _UNTOLD
            wait = -credit / self.rate
            if wait > longest:
                return -wait
            self._credit = credit
            self._taken += 1
            return wait
        self._credit = credit
        self._taken += 1
        return 0.0

    def resize(self, limit: float) -> None:
        """Of the whole limit, this much is this process's own from now on; 0 lets nothing through. How warm it is stays
        as it is."""
        first = not self._burst
        self._limit = limit
        self._warm(self._heat)
        self._credit = self._burst if first else min(self._credit, self._burst)

    def demand(self, seconds: float) -> float:
        """How much of the limit could be used, judged by the `seconds` since this was last asked: infinite where a
        request had to wait.

        Otherwise so much that twice the number sent may be, as warm as it is; a hundredth of the whole at least.
        """
        used, self._used = self._used + self._taken, -self._taken
        short, self._short = self._short, False
        if short or seconds <= 0:
            return math.inf
        return max(_RESERVE * self._whole, 2 * used / seconds / max(_COLD, self._heat))

    def _look(self, now: float) -> None:
        """A window has passed: grow warmer or colder by the rate used in it."""
        if self._ramp:
            past = now - self._since
            # A process whose part of the rate is 0 (it could not ask for one: the database was away) may send nothing,
            # and cools down.
            used = min(1.0, self._taken / (self.rate * past)) if self.rate else 0.0
            self._warm(min(1.0, max(0.0, self._heat + (2.0 * used - 1.0) * past / self._ramp)))
        self._since = now
        self._used += self._taken
        self._taken = 0

    def _warm(self, heat: float) -> None:
        self._heat = heat
        self.rate = self._limit * max(_COLD, heat)
        """Messages per second that are let through at present."""
        least = min(_LEAST_BURST, max(_PART_BURST, _LEAST_BURST * self._limit / self._whole))
        self._burst = max(self.rate, least) if self._limit else 0.0
