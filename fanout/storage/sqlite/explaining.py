"""Explain: where a delivery is and was, and what `decisions` kept of it."""

from __future__ import annotations

from collections.abc import Iterator

from fanout.core.records import Step
from fanout.storage.explaining import Place, explained
from fanout.storage.sql.decisions import rows_of
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.ledger import codes_of
from fanout.storage.sqlite.session import shared

__all__ = ["explain"]

_BATCH = 16
"""Chunks whose ids are in memory at a time."""


def explain(db: Db, uuid: str, endpoint: int) -> list[Step] | None:
    """What was decided about this delivery, oldest first."""
    found = db.rows("id, accepted_at, due_at", "notification WHERE uuid = ?", uuid)
    if not found:
        return None
    id, accepted_at, due_at = found[0]
    places = list(_places(db, id, endpoint))
    if not places:
        return []
    pauses = shared(db, rows_of, -places[0].binding, accepted_at)
    return explained(accepted_at, due_at, places, shared(db, rows_of, id), pauses, codes_of(db, [id])[id].pair)


def _places(db: Db, notification: int, endpoint: int) -> Iterator[Place]:
    """The chunks that it is or was in, oldest first."""
    chunks = db.json(
        "SELECT json_group_array(id) FROM chunk WHERE notification = ?1 AND low <= ?2 AND high >= ?2",
        notification,
        endpoint,
    )
    chunks.sort()
    for first in range(0, len(chunks), _BATCH):
        rows = db.rows(
            "hex(c.states), hex(a.ids), c.id, c.binding, c.attempt, c.held, c.created_at, c.created_after, c.settled_at, "
            "c.worker, c.leased_at, c.leased_after",
            "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN audience a ON a.chunk = c.id",
            dumps(chunks[first : first + _BATCH]),
        )
        for states, packed, *about in rows:
            place = Place.find(endpoint, bytes.fromhex(states), bytes.fromhex(packed), *about)
            if place is not None:
                yield place
