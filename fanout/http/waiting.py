"""Requests that wait for a connection or a free stream, and what becomes of them."""

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
"""Seconds that what waits leaves to connections in doubt to answer a PING, before another is opened besides."""


class Waiting(NamedTuple):
    """One request. `deadline` is in the pool's seconds."""

    future: asyncio.Future[Response]
    head: Head
    path: bytes
    fields: bytes
    body: bytes
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

    `refuse` ends a request of which nothing was sent, for a reason.
    """

    __slots__ = ("_refuse", "fresh", "usual")

    def __init__(self, refuse: Callable[[asyncio.Future[Response], str], None]) -> None:
        self._refuse = refuse
        self.usual: deque[Waiting] = deque()
        self.fresh: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self.usual) + len(self.fresh)

    @staticmethod
    def freshest(connections: Sequence[Connection], now: float) -> list[Connection]:
        """Those that may carry what asks for a fresh one."""
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

    def drop_late(self, now: float) -> None:
        """Refuse what is past its deadline, and forget what was cancelled."""
        for queue in (self.usual, self.fresh):
            if not any(item.deadline <= now or item.future.done() for item in queue):
                continue
            items = list(queue)
            queue.clear()
            for item in items:
                if item.deadline <= now:
                    self._refuse(item.future, "timeout")
                elif not item.future.done():
                    queue.append(item)

    def pump(self, queue: deque[Waiting], connections: Sequence[Connection]) -> None:
        """Send what waits in one of the queues, as far as these connections have room: over the least used first."""
        while queue:
            best = least_used(connections)
            if best is None:
                return
            item = queue.popleft()
            if item.future.done():
                continue
            stream = best.codec.request(item.future, item.head, item.path, item.fields, item.body)
            best.deadlines[stream] = item.deadline
            best.flush_soon()
