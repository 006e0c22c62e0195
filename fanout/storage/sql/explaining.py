"""Explain: where a delivery is and was, and the steps that `decisions` kept."""

from __future__ import annotations

from fanout.core.records import Step
from fanout.storage.explaining import Place, explained
from fanout.storage.sql.db import Db, column
from fanout.storage.sql.decisions import rows_of
from fanout.storage.sql.ledger import codes_of

__all__ = ["explain"]

_BATCH = 16
"""Chunks whose ids are in memory at a time."""


async def explain(db: Db, uuid: str, endpoint: int) -> list[Step] | None:
    """The decisions about this delivery, oldest first."""
    found = await db.row("SELECT id, accepted_at, due_at FROM notification WHERE uuid = $1", uuid)
    if found is None:
        return None
    id, accepted_at, due_at = found
    places = await _places(db, id, endpoint)
    if not places:
        return []
    log, pauses = await rows_of(db, id), await rows_of(db, -places[0].binding, accepted_at)
    return explained(accepted_at, due_at, places, log, pauses, (await codes_of(db, [id]))[id].pair)


async def _places(db: Db, notification: int, endpoint: int) -> list[Place]:
    """The chunks that it is or was in, oldest first."""
    around = "SELECT id FROM chunk WHERE notification = $1 AND low <= $2 AND high >= $2"
    chunks = sorted(await column(db, around, notification, endpoint))
    places = []
    for first in range(0, len(chunks), _BATCH):
        rows = await db.rows(
            f"SELECT {db.binary('c.states')}, {db.binary('a.ids')}, c.id, c.binding, c.attempt, c.held, c.created_at, c.created_after, "
            "c.settled_at, c.worker, c.leased_at, c.leased_after FROM chunk c JOIN audience a ON a.chunk = c.id "
            f"WHERE c.id {db.among(1, 'bigint')}",
            chunks[first : first + _BATCH],
        )
        for states, ids, *about in rows:
            place = Place.find(endpoint, db.bytes_of(states), db.bytes_of(ids), *about)
            if place is not None:
                places.append(place)
    return sorted(places, key=lambda place: place.chunk)
