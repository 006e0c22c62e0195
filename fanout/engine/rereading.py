"""The endpoints of leases that have waited in memory, read again: a device may belong to another user by now.

A lease names endpoints by id and reads them once. Where a gateway is slow, its deliveries wait for seconds. Meanwhile
an endpoint may be removed or refreshed with another address, or its address registered for another user.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fanout.core.model import LANES
from fanout.core.records import EndpointRow
from fanout.engine.binding_state import BindingState
from fanout.plugin import Storage

__all__ = ["Rereading", "changed"]

_LONGEST = 1.0
"""Seconds between two looks, at most: for so long a delivery may still go to an address that its endpoint has left."""
_SHORTEST = 0.1
_SHARE = 100
"""A look is followed by a pause of so many times its own length: it takes a hundredth of the time at most, up to the
longest pause."""


def changed(
    before: Sequence[EndpointRow | None], ids: Sequence[int], found: dict[int, EndpointRow]
) -> dict[int, EndpointRow | None]:
    """The present rows, by position, of the endpoints that have changed; None for one that is no more. Back-off is no
    change."""
    now = {position: found.get(id) for position, id in enumerate(ids)}
    return {
        position: row
        for position, row in now.items()
        if (old := before[position]) is not None and (row is None or row[1:7] != old[1:7])
    }


class Rereading:
    """The looks of one binding."""

    def __init__(self, state: BindingState, storage: Storage) -> None:
        self._state = state
        self._storage = storage
        self._pause = _SHORTEST
        self._next = -math.inf

    async def look(self) -> None:
        """Read the endpoints of leases that have waited, and tell the leases the changes. Reads nothing where none has
        waited.

        Raises:
            StorageError: The database cannot be read.
        """
        state = self._state
        began = state.clock.monotonic()
        if began < self._next or not any(map(state.queued, range(len(LANES)))):
            return
        leases = [lease for lease in state.leases.values() if lease.left and lease.rows_at <= began - self._pause]
        if not leases:
            return
        ids = leases[0].chunk.ids[:]
        for lease in leases[1:]:
            ids.extend(lease.chunk.ids)
        found = {row[0]: row for row in await self._storage.resolve(ids, state.clock.now())}
        for lease in leases:
            lease.rows_at = began
            lease.renew(changed(lease.rows, lease.chunk.ids, found))
        ended = state.clock.monotonic()
        self._pause = min(_LONGEST, max(_SHORTEST, _SHARE * (ended - began)))
        self._next = ended + self._pause
