"""How many deliveries of a group may be under way: adaptive concurrency, after Netflix's Gradient2.

The limit shrinks when the gateway's answers take longer than usual, or when it throttles or fails; it grows again, by
about its square root, while the answers come as usual and the limit holds deliveries back. The transport's capacity is
the ceiling, and where it starts: HTTP/2's MAX_CONCURRENT_STREAMS is the gateway's own limit.

Gradient2 (github.com/Netflix/concurrency-limits) compares single answers with a long average. Here the comparison is
made once for each window of answers, because the senders must not pay for it with each of them; and there is no search
for a minimum latency, which would cost throughput.
"""

from __future__ import annotations

import math

__all__ = ["Limiter"]

_TOLERANCE = 1.5
"""An answer may take so many times the usual before the limit shrinks (Gradient2's `rttTolerance`)."""
_SMOOTHING = 0.2
_AS_SLOW = 0.7
"""With half as many under way, an answer that takes more than this part of the time is not slow because of how many
there were."""
_LONG = 600
"""Answers over which "usual" is averaged (Gradient2's `longWindow`)."""
_MIN_LATENCY = 0.001
"""Seconds. Below, the differences are those of our own loop."""
_DROP = 0.9
_FEW = 4
"""Answers that a window must have before it says anything."""
_TOO_MANY = 0.1
"""The part of the answers that may be failures before the limit shrinks: a few endpoints' trouble is not the
gateway's."""


class Limiter:
    """One group's limit. Latencies are in seconds."""

    __slots__ = ("_answers", "_dropped", "_heard", "_long", "_most", "_samples", "_slow", "_sum", "limit")

    def __init__(self) -> None:
        self.limit = math.inf
        self._long = 0.0
        self._heard = 0  # latencies in that average, as many as count
        self._slow = (0.0, 0.0)  # the limit and the latency where the present slowness began
        self._sum = 0.0
        self._samples = 0
        self._answers = 0
        self._dropped = 0
        self._most = 0

    def answered(self, latency: float, each: int = 1, samples: int = 1) -> None:
        """Answers took so long: `samples` of them, each of which stands for `each` answers."""
        self._sum += latency * samples
        self._samples += samples
        self._answers += each * samples

    def dropped(self) -> None:
        """The gateway throttled, failed or did not answer in time. Told of every such answer."""
        self._dropped += 1

    def adjust(self, in_flight: int, ceiling: int) -> int:
        """End the window: the limit from now on, from 1 to `ceiling`. `in_flight` is how many were under way in it at
        most."""
        limit = min(self.limit, float(ceiling))
        self._most = max(self._most, ceiling)
        answers = max(self._answers, self._dropped)
        if answers >= _FEW and self._dropped > _TOO_MANY * answers:
            self.limit = max(1.0, _DROP * self._blamed(in_flight, ceiling))
        elif self._samples >= _FEW:
            compared = self._compared(limit, in_flight)
            # A limit that the ceiling holds down (a new connection takes few at first) is not lowered by that: when the
            # ceiling comes back, so does the limit.
            if compared < limit or limit < ceiling:
                self.limit = max(1.0, compared)
        else:
            # Too few answers to judge by: they are kept for the next window.
            return max(1, int(limit))
        self._sum, self._samples, self._answers, self._dropped = 0.0, 0, 0, 0
        return max(1, int(min(self.limit, float(ceiling))))

    def _blamed(self, in_flight: int, ceiling: int) -> float:
        """How many at once were too many: those that were under way, and not the few that a new connection takes at
        first.

        Where even less than half of the limit was under way, it is the limit: the failures say little of it.
        """
        level = min(self.limit, float(max(self._most, in_flight)))
        return level if in_flight * 2 < level else min(level, float(max(ceiling, in_flight)))

    def _compared(self, limit: float, in_flight: int) -> float:
        short = max(_MIN_LATENCY, self._sum / self._samples)
        # At first all count the same. Of the first deliveries the quick answers come first: these alone do not show the
        # usual time.
        self._heard = min(self._heard + self._samples, _LONG)
        weight = max(1.0 - (1.0 - 2.0 / (_LONG + 1)) ** self._samples, self._samples / self._heard)
        self._long += (short - self._long) * min(weight, 1.0)
        if self._long > 2.0 * short:
            # It was slow once and is no longer: the usual latency must not stay high, or the next slowness goes
            # unnoticed.
            self._long *= 0.95
        gradient = max(0.5, min(1.0, _TOLERANCE * self._long / short))
        if gradient == 1.0:
            self._slow = (0.0, 0.0)
        elif not self._slow[0]:
            self._slow = (limit, short)
        elif limit * 2.0 < self._slow[0] and short > _AS_SLOW * self._slow[1]:
            # Half as many at once are no faster: it is not they that made it slow. This is the usual time from now on.
            self._long += (short - self._long) * _SMOOTHING
        if gradient == 1.0 and in_flight * 2 < limit:
            return limit  # the application is the limit: growing would only store up a burst
        # A window speaks as loudly as its answers would one by one, up to ten of them.
        weight = 1.0 - (1.0 - _SMOOTHING) ** min(self._samples, 10)
        return limit + weight * (limit * (gradient - 1.0) + max(4.0, math.sqrt(limit)))
