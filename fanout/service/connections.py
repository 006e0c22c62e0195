"""The open connections of a server: how many there may be in all and of each peer, and which of them can go to make
room.

Pure but for the objects that stand for connections: `fanout.service.server` closes those that are named here.
"""

from __future__ import annotations

import resource
from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["KEPT_BACK", "Connections", "room"]

KEPT_BACK = 128
"""Descriptors that connections of clients leave for the database, gateways and files. Of few descriptors half are
left."""

_C = TypeVar("_C", bound=Hashable)


def room(most: int, descriptors: int | None = None) -> int:
    """How many connections may be open: `most`, and no more than the process's descriptors allow.

    `descriptors` is the soft limit (RLIMIT_NOFILE); left out, that of this process.
    """
    if descriptors is None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            return most
    return max(1, min(most, max(descriptors - KEPT_BACK, descriptors // 2)))


class Connections(Generic[_C]):
    """At most `most` connections, and `per_peer` of each peer, but never more than a quarter of all.

    A connection waits from its beginning, and again from the end of an answer, until the head of a request has come. At
    the limit the one that has waited longest is ended for a new one: a peer that holds connections open and asks
    nothing holds no other peer off.
    """

    def __init__(self, most: int, per_peer: int) -> None:
        self._most = most
        self._per_peer = max(1, min(per_peer, most // 4 or 1))
        self._peers: Counter[str] = Counter()
        self._open: dict[_C, str] = {}
        self._waiting: OrderedDict[_C, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: _C, peer: str) -> tuple[bool, _C | None]:
        """Whether a new connection may stay, and one that is to be closed for it. `peer` is "" for one without a limit
        of its own.

        One that may not stay is not counted. One that is to be closed is forgotten at once.
        """
        if peer and self._peers[peer] >= self._per_peer:
            victim = next((each for each in self._waiting if self._open[each] == peer), None)
        elif len(self._open) >= self._most:
            victim = next(iter(self._waiting), None)
        else:
            self._enter(connection, peer)
            return True, None
        if victim is None:
            return False, None
        self.closed(victim)
        self._enter(connection, peer)
        return True, victim

    def waits(self, connection: _C) -> None:
        """It has been answered: it waits for its next request from now on."""
        if connection in self._open:
            self._waiting[connection] = None
            self._waiting.move_to_end(connection)

    def works(self, connection: _C) -> None:
        """The head of a request has come."""
        self._waiting.pop(connection, None)

    def closed(self, connection: _C) -> None:
        """It has ended."""
        peer = self._open.pop(connection, None)
        self._waiting.pop(connection, None)
        if peer:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def _enter(self, connection: _C, peer: str) -> None:
        self._open[connection] = peer
        self._waiting[connection] = None
        if peer:
            self._peers[peer] += 1
