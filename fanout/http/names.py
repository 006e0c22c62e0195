"""A check now and then: whether a pool's connections still go to addresses of the host's name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fanout.http.dial import Origin, Resolver
from fanout.http.settings import PoolSettings, PoolStats

if TYPE_CHECKING:
    from fanout.http.connection import Connection

__all__ = ["NameWatch"]


class NameWatch:
    """Counts in each connection's `missed_dns` in how many looks in a row its address was not among the host's."""

    def __init__(self, origin: Origin, resolver: Resolver, settings: PoolSettings, stats: PoolStats) -> None:
        self._origin = origin
        self._resolver = resolver
        self._settings = settings
        self._stats = stats
        self.looked_at = float("-inf")
        self.task: asyncio.Task[None] | None = None

    def look(self, now: float, connections: Sequence[Connection]) -> None:
        """Begin a look if one is due. `connections` may change meanwhile."""
        interval = self._settings.dns_interval
        if interval is None or self.task is not None or not connections or now - self.looked_at < interval:
            return
        self.looked_at = now
        self.task = asyncio.get_running_loop().create_task(self._compare(connections))
        self.task.add_done_callback(self._done)

    async def _compare(self, connections: Sequence[Connection]) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                addresses = await self._resolver(self._origin.host, self._origin.port)
        except OSError:  # TimeoutError is one: a name service in trouble says nothing about where the host is
            return
        for connection in connections:
            connection.missed_dns = 0 if connection.address in addresses else connection.missed_dns + 1

    def _done(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stats.last_trouble = f"the resolver raised {type(error).__name__}"
