"""The rules of leases, the same for every database."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence

from fanout.core.records import Chunk, EndpointRow, Stored

__all__ = ["complete", "endpoints_of", "few", "soonest"]

_AT_HAND = 64
"""Deliveries up to which a lease also brings endpoints and notifications."""
_SMALL = 8
"""Of chunks with so many deliveries or fewer on average it brings them up to eight times as many: some 0.3 ms of a
transaction. A larger chunk has one notification to ask for, and its endpoints come faster by column."""


def few(chunks: Sequence[Chunk]) -> bool:
    """Whether the lease brings all that a send needs, so that no caller has to come back for it."""
    return 0 < sum(len(chunk.ids) for chunk in chunks) <= max(_AT_HAND, _SMALL * min(_AT_HAND, len(chunks)))


def endpoints_of(chunks: Sequence[Chunk]) -> array[int]:
    """The endpoints' ids of all of them."""
    return array("q", [id for chunk in chunks for id in chunk.ids])


def complete(chunks: Sequence[Chunk], rows: Iterable[EndpointRow], stored: Mapping[str, Stored | None]) -> None:
    """Put endpoints and notifications, by id, into the chunks. A chunk of which an endpoint is not there has its rows
    read later."""
    found = {row.id: row for row in rows}
    for chunk in chunks:
        if all(id in found for id in chunk.ids):
            chunk.rows = [found[id] for id in chunk.ids]
        chunk.stored = stored.get(chunk.notification)


def soonest(times: Iterable[Iterable[float | None]], now: float) -> tuple[list[bool], float | None]:
    """For each lane, of which these times are, whether there is work now; and when there will be, where that is
    later."""
    firsts = [min((at for at in lane if at is not None), default=None) for lane in times]
    ready = [first is not None and first <= now for first in firsts]
    return ready, min((first for first in firsts if first is not None and first > now), default=None)
