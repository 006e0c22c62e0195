"""Requests that wait for a connection or a free stream, and their ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fanout.http.hpack_encoder import Head
from fanout.http.response import Response

if TYPE_CHECKING:
    from fanout.http.connection import Connection

__all__ = ["Waiting", "WaitingRoom", "least_used"]


_ASKED = 0.25
"""Seconds that waiting requests leave to connections in doubt to answer a PING, before another is opened besides."""


class Waiting(NamedTuple):
    """One request, that waits since `since` (the pool's seconds) and has until `deadline`, and for as long again as it
    waits for a free stream among our own: `patience` seconds at most."""

    future: asyncio.Future[Response]
    head: Head
    path: bytes
    fields: bytes
    body: bytes
    since: float
    patience: float
    deadline: float


def least_used(connections: Sequence[Connection]) -> Connection | None:
    """The connection with the fewest requests under way, of those that take another."""
    best, least = None, 1 << 60
    for connection in connections:
        load = len(connection.codec.streams)
        if load < least and load < connection.limit:
            best, least = connection, load
    return best


class WaitingRoom:
    """Two queues: `usual` for any connection, `fresh` for those that were opened or answered within the last second.

    `refuse` ends a request of which nothing was sent, for a reason. `clock` gives the pool's seconds.
    """

    __slots__ = ("_clock", "_connected_at", "_refuse", "fresh", "usual")

    def __init__(self, refuse: Callable[[asyncio.Future[Response], str], None], clock: Callable[[], float]) -> None:
        self._refuse = refuse
        self._clock = clock
        self._connected_at = float("inf")
        self.usual: deque[Waiting] = deque()
        self.fresh: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self.usual) + len(self.fresh)

    @staticmethod
    def freshest(connections: Sequence[Connection], now: float) -> list[Connection]:
        """Those that may carry a request for a fresh one."""
        return [connection for connection in connections if connection.fresh(now)]

    def stale(self, connections: Sequence[Connection], now: float) -> bool:
        """Whether something waits that none of the connections may carry: none has proved itself, or none is fresh."""
        if self.usual and all(now - connection.asked_at >= _ASKED for connection in connections):
            return True
        if not self.fresh or self.freshest(connections, now):
            return False
        # One that is on trial with a request out is about to be proven, or will be found mute.
        return not any(connection.alone and connection.codec.streams for connection in connections)

    def refuse_all(self, queue: deque[Waiting], reason: str) -> None:
        """Refuse everything in one of the queues."""
        while queue:
            self._refuse(queue.popleft().future, reason)

    def drop_late(self, now: float, ready: Sequence[Connection]) -> None:
        """Refuse requests that have waited for too long, and forget cancelled ones. `ready` are the connections that
        there are."""
        self._look(ready, now)
        for queue in (self.usual, self.fresh):
            late = [(item, self._late(item, now)) for item in queue]
            if not any(over or item.future.done() for item, over in late):
                continue
            queue.clear()
            for item, over in late:
                if over:
                    self._refuse(item.future, "timeout")
                elif not item.future.done():
                    queue.append(item)

    def pump(self, queue: deque[Waiting], connections: Sequence[Connection]) -> None:
        """Send the requests of one of the queues, as far as these connections have room: over the least used first."""
        now = self._clock()
        if queue is self.usual:
            self._look(connections, now)
        while queue:
            best = least_used(connections)
            if best is None:
                return
            item = queue.popleft()
            if item.future.done():
                continue
            stream = best.codec.request(item.future, item.head, item.path, item.fields, item.body)
            best.deadlines[stream] = item.deadline + self._waited(item, now)
            best.flush_soon()

    def _look(self, ready: Sequence[Connection], now: float) -> None:
        self._connected_at = min(self._connected_at, now) if ready else float("inf")

    def _waited(self, item: Waiting, now: float) -> float:
        """For how long it waited while there were connections: for us, and not for the gateway."""
        return max(0.0, now - max(item.since, self._connected_at))

    def _late(self, item: Waiting, now: float) -> bool:
        waited = self._waited(item, now)
        return now >= item.deadline + waited or waited >= item.patience
