"""The purge guard: it keeps a wrong configuration of ours, or a gateway gone mad, from emptying the directory.

Some verdicts of the kind "this token is dead" are also the answer of a gateway when *we* speak for the wrong app or
environment (APNs `BadDeviceToken` and `DeviceTokenNotForTopic`, FCM `SENDER_ID_MISMATCH`). One such verdict is an
endpoint's affair. Many at once are ours. And where most deliveries are answered with a certain death, the cause is
not that most users threw their devices away on one day: then nothing more is removed before an operator has looked.
"""

from __future__ import annotations

from collections import deque

__all__ = ["PurgeGuard"]

_FEW = 0.4
_NEXT_TO_ALL = 0.9
_ALIVE, _GONE, _UNCERTAIN = 0, 1, 2


class PurgeGuard:
    """Watches the last `window` verdicts of one binding.

    More than `share` uncertain deaths among them holds further uncertain ones back, from `minimum` verdicts on: a
    binding with three devices may well have one that is dead. More than `share` deaths of either kind, from `wave`
    verdicts on, stops removals until the share has fallen to half of that, or `reset`.
    """

    __slots__ = ("_counts", "_minimum", "_recent", "_share", "_wave", "doubts", "stopped")

    def __init__(self, *, window: int = 400, share: float = 0.5, minimum: int = 20, wave: int = 50) -> None:
        self._recent: deque[int] = deque(maxlen=window)
        self._counts = [0, 0, 0]
        self._share = share
        self._minimum = minimum
        self._wave = wave
        self.stopped = False
        """Whether removals have stopped because of a wave of deaths."""
        self.doubts = False
        """Whether uncertain deaths are not believed: from when they are too many until they are clearly few again, so
        that a share that sways about its bound does not remove a few more each time."""

    @property
    def tripped(self) -> bool:
        """Whether uncertain deaths are at present too many to be believed."""
        seen = len(self._recent)
        return seen >= self._minimum and self._counts[_UNCERTAIN] > self._share * seen

    @property
    def holds(self) -> bool:
        """Whether next to nothing but uncertain deaths comes back: a push to an endpoint of unknown standing is
        lost."""
        seen = len(self._recent)
        return seen >= self._minimum and self._counts[_UNCERTAIN] > _NEXT_TO_ALL * seen

    def saw_alive(self, count: int = 1) -> None:
        """So many verdicts that show the configuration to be right."""
        for _ in range(min(count, self._recent.maxlen or count)):
            self._push(_ALIVE)

    def saw_death(self) -> bool:
        """A certain death. True if the endpoint may be removed."""
        self._push(_GONE)
        return not self.stopped

    def saw_uncertain_death(self) -> bool:
        """An uncertain death. True if the endpoint may be purged, False if the guard holds it."""
        self._push(_UNCERTAIN)
        return not (self.stopped or self.tripped)

    def reset(self) -> None:
        """An operator has looked: believe the gateway again."""
        self._recent.clear()
        self._counts = [0, 0, 0]
        self.stopped = self.doubts = False

    def _push(self, verdict: int) -> None:
        recent, counts = self._recent, self._counts
        if len(recent) == recent.maxlen:
            counts[recent[0]] -= 1
        recent.append(verdict)
        counts[verdict] += 1
        if self.tripped:
            self.doubts = True
        elif counts[_UNCERTAIN] <= _FEW * len(recent) or len(recent) == recent.maxlen:
            self.doubts = False
        deaths = counts[_GONE] + counts[_UNCERTAIN]
        if len(recent) >= self._wave and deaths > self._share * len(recent):
            self.stopped = True
        elif deaths <= self._share * len(recent) / 2:
            self.stopped = False
