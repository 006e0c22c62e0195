"""The acceptances of a credential since it was loaded: by which gateways, for which endpoints and notifications.

In memory only, per binding. A restart forgets it, and then no uncertain answer is believed before the first acceptance.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LATELY", "Standing"]

LATELY = 60.0
"""Seconds for which an acceptance counts as lately."""
_ENDPOINTS = 10_000
"""Endpoints that are remembered at least; at most twice as many are."""
_NOTIFICATIONS = 128
"""Notifications that are remembered for each group at most, and always the last eight."""
_GROUPS = 10_000


class Standing:
    """Acceptances of one binding's present credential. Times are UNIX seconds, given by the caller."""

    __slots__ = ("_before", "_endpoints", "_latest", "_vouched")

    def __init__(self) -> None:
        self._endpoints: set[int] = set()
        self._before: set[int] = set()
        self._vouched: set[str] = set()
        self._latest: dict[str, dict[str, float]] = {}

    def know(self, endpoints: Iterable[int]) -> None:
        """These endpoints were accepted."""
        known = self._endpoints
        known.update(endpoints)
        if len(known) >= _ENDPOINTS:
            self._before, self._endpoints = known, set()

    def accepted(self, groups: Iterable[str], names: Iterable[str], notification: str, now: float) -> None:
        """The notification was accepted in these groups at `now`, by the gateways (or hosts) of these `names`."""
        self._vouched.update(names)
        known = self._latest
        for group in groups:
            latest = known.get(group)
            if latest is None:
                latest = self._begin(group)
            latest[notification] = now
            if len(latest) > _NOTIFICATIONS:
                for id in sorted(latest, key=latest.__getitem__)[:-8]:
                    del latest[id]

    def _begin(self, group: str) -> dict[str, float]:
        if len(self._latest) >= _GROUPS:
            del self._latest[next(iter(self._latest))]
        begun: dict[str, float] = {}
        self._latest[group] = begun
        return begun

    def knows(self, endpoint: int) -> bool:
        """Whether this endpoint is among the last that were accepted."""
        return endpoint in self._endpoints or endpoint in self._before

    def vouched(self, name: str) -> bool:
        """Whether the credential was ever accepted by the gateway of this name."""
        return name in self._vouched

    def lately(self, group: str | None, now: float, *, but: str = "") -> bool:
        """Whether the group (None: any) accepted something lately, of another notification than `but`."""
        groups = self._latest.values() if group is None else [self._latest.get(group, {})]
        return any(id != but and now - at < LATELY for latest in groups for id, at in latest.items())

    def since(self, group: str, notification: str) -> float:
        """When the notification was last accepted in the group; minus infinity for never, as far as is remembered."""
        return self._latest.get(group, {}).get(notification, float("-inf"))

    def forget(self) -> None:
        """The credential is another: nothing is known of it."""
        self._endpoints, self._before = set(), set()
        self._vouched.clear()
        self._latest.clear()
