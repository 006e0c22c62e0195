"""The project's rate, kept to before Google has to say so. Pure: a token bucket that warms up, with the time as an argument.

Google counts 600,000 messages a minute per project, and asks that traffic go from nothing to its peak over a minute at least
("Throttling and quotas", "Best practices when sending FCM messages at scale").
"""

from __future__ import annotations

__all__ = ["Shaper"]

_COLD = 1 / 60
"""The part of the rate at which a cold start begins: what a ramp of a minute has reached after its first second."""
_WINDOW = 0.25
"""Seconds over which it is seen how much of the rate is used."""
_LEAST_BURST = 100.0
"""Messages that may always go at once. Otherwise a second's worth of the present rate may."""


class Shaper:
    """`limit` in messages per second when warm, `ramp` the seconds from cold to warm (0: always warm). Times are monotonic seconds.

    Heat grows from 0 to 1 while more than half of the present rate is used, and sinks while less is: a steady trickle stays cold,
    and whoever sends at some rate may send at twice of it at once, and at the limit after the ramp.
    """

    __slots__ = ("__weakref__", "_at", "_burst", "_credit", "_heat", "_limit", "_ramp", "_since", "_taken", "rate")

    def __init__(self, limit: float, ramp: float, now: float) -> None:
        self._limit = limit
        self._ramp = ramp
        self._at = self._since = now
        self._taken = 0
        self._warm(0.0 if ramp else 1.0)
        self._credit = self._burst

    def take(self, now: float, longest: float) -> float:
        """Reserve one message; the seconds to wait for its turn, 0 for none.

        Where that would be more than `longest`, nothing is reserved, and the answer is negative: minus the seconds to wait.
        """
        if now > self._at:
            credit = self._credit + (now - self._at) * self.rate
            self._credit = credit if credit < self._burst else self._burst
            self._at = now
            if now - self._since >= _WINDOW:
                self._look(now)
        credit = self._credit - 1.0
        if credit < 0:
            wait = -credit / self.rate
            if wait > longest:
                return -wait
            self._credit = credit
            self._taken += 1
            return wait
        self._credit = credit
        self._taken += 1
        return 0.0

    def _look(self, now: float) -> None:
        """A window has passed: grow warmer or colder by what was used in it."""
        if self._ramp:
            past = now - self._since
            used = min(1.0, self._taken / (self.rate * past))
            self._warm(min(1.0, max(0.0, self._heat + (2.0 * used - 1.0) * past / self._ramp)))
        self._since = now
        self._taken = 0

    def _warm(self, heat: float) -> None:
        self._heat = heat
        self.rate = self._limit * max(_COLD, heat)
        """Messages per second that are let through at present."""
        self._burst = max(self.rate, _LEAST_BURST)
