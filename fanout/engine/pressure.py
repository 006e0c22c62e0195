"""Back-pressure: whether there is room for more. An accepted notification is never dropped, so one that cannot be kept
must not be accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fanout.core.policy import BacklogLimits
from fanout.core.records import Backlog
from fanout.engine.signal import Signal
from fanout.errors import Backlogged
from fanout.plugin import Clock, Storage

__all__ = ["Pressure"]

_FRESH = 0.1
"""Seconds for which a look at the backlog serves; this process's own acceptances meanwhile are added to it."""
_SHARE = 20.0
"""A look may take a twentieth of the time at most: of a backlog that is slow to count, it is taken less often."""
_AGAIN = 0.1


class Pressure:
    """Judges each acceptance by the known backlog of its app."""

    def __init__(self, storage: Storage, limits: BacklogLimits, clock: Clock) -> None:
        self._storage = storage
        self._limits = limits
        self.bounded = limits.any
        """Whether any bound is set: without one there is nothing to ask about."""
        self._clock = clock
        self._known: dict[str, tuple[float, Backlog]] = {}

    async def admit(self, app: str, size: int, count: int) -> None:
        """Return when there is room. Raises `Backlogged` when there is none after `wait` seconds."""
        if not self.bounded:
            return
        deadline = self._clock.monotonic() + self._limits.wait
        while passed := self._limits.passed(await self._look(app), self._clock.now()):
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise Backlogged(
                    f"{app}: {passed}. Nothing was stored; send it again later, or raise the bound in [backlog].",
                    retry_after=max(1.0, self._limits.wait),
                )
            await Signal().wait(min(left, _AGAIN))
        until, backlog = self._known[app]
        self._known[app] = until, replace(backlog, deliveries=backlog.deliveries + count, bytes=backlog.bytes + size)

    async def _look(self, app: str) -> Backlog:
        began = self._clock.monotonic()
        until, backlog = self._known.get(app, (0.0, Backlog()))
        if began < until:
            return backlog
        backlog = await self._storage.backlog(app)
        over = self._clock.monotonic()
        self._known[app] = over + max(_FRESH, _SHARE * (over - began)), backlog
        return backlog

    @property
    def known(self) -> Mapping[str, Backlog]:
        """The backlog of each app when it was last looked at."""
        return {app: backlog for app, (_, backlog) in self._known.items()}
