"""The statements of a settlement: which chunks are held, and new retry rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.statemap import Codes
from fanout.storage.settlements import Held
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["add_retries", "held"]


def held(db: Db, chunks: Sequence[int]) -> tuple[dict[int, Held], dict[int, Codes]]:
    """The chunks that are held, and the lists of (state, reason) of their notifications."""
    rows = db.rows(
        "c.id, c.epoch, c.notification, n.stopped, c.binding, c.lane, c.owner, c.leased_at, c.leased_after, "
        "hex(c.states), json((SELECT json_group_array("
        "json_array(t.state, t.reason)) FROM (SELECT * FROM tally WHERE notification = n.id ORDER BY code) t))",
        "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN notification n ON n.id = c.notification "
        "WHERE c.owner IS NOT NULL",
        dumps(list(chunks)),
    )
    found: dict[int, Held] = {}
    codes: dict[int, Codes] = {}
    for id, epoch, notification, *lease, states, pairs in rows:
        found[id] = Held(*[epoch, notification, *lease, bytes.fromhex(states)])
        if notification not in codes:
            codes[notification] = Codes(map(tuple, pairs))
    return found, codes


def add_retries(db: Db, rows: Sequence[Sequence[Any]]) -> None:
    """Store these retry rows."""
    db.many(
        "INSERT INTO retry (notification, endpoint, binding, lane, due_at, attempt, waiting, reason, holds, since) SELECT "
        "value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9 FROM jsonb_each(?)",
        rows,
    )
