"""The purge guard: what keeps a wrong configuration of ours from emptying the directory.

Some verdicts of the kind "this token is dead" are also what a gateway says when *we* speak for the wrong app or environment
(APNs `BadDeviceToken` and `DeviceTokenNotForTopic`, FCM `SENDER_ID_MISMATCH`). One such verdict is an endpoint's affair. Many
at once are ours.
"""

from __future__ import annotations

from collections import deque

__all__ = ["PurgeGuard"]


class PurgeGuard:
    """Watches the last `window` verdicts of one binding; more than `share` uncertain deaths among them holds further ones back.

    Below `minimum` verdicts it lets uncertain deaths pass: a binding with three devices may well have one that is dead.
    """

    __slots__ = ("_bad", "_minimum", "_recent", "_share")

    def __init__(self, *, window: int = 400, share: float = 0.5, minimum: int = 20) -> None:
        self._recent: deque[bool] = deque(maxlen=window)
        self._bad = 0
        self._share = share
        self._minimum = minimum

    @property
    def tripped(self) -> bool:
        """Whether uncertain deaths are at present too many to be believed."""
        return len(self._recent) >= self._minimum and self._bad > self._share * len(self._recent)

    def saw_alive(self, count: int = 1) -> None:
        """So many verdicts that show the configuration to be right: accepted, or a certain death."""
        for _ in range(min(count, self._recent.maxlen or count)):
            self._push(False)

    def saw_uncertain_death(self) -> bool:
        """An uncertain death. True if the endpoint may be purged, False if the guard holds it."""
        self._push(True)
        return not self.tripped

    def _push(self, bad: bool) -> None:
        recent = self._recent
        if len(recent) == recent.maxlen and recent[0]:
            self._bad -= 1
        recent.append(bad)
        self._bad += bad
