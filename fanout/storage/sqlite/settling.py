"""The statements of a settlement: which chunks are held, and new retry rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.statemap import Codes
from fanout.storage.settlements import Held
from fanout.storage.sqlite.db import Db, as_json, dumps

__all__ = ["add_retries", "end", "held"]


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


def end(db: Db, rows: Sequence[Sequence[Any]], now: float) -> list[Any]:
    """See `sql.hot`."""
    found = db.rows(
        "j.value->>0, n.uuid, a.name, n.attempts + j.value->>4, n.accepted_at, n.due_at, n.expires_at, n.id, n.app",
        "jsonb_each(?) j CROSS JOIN chunk c ON c.id = j.value->>1 CROSS JOIN notification n ON n.id = c.notification "
        "CROSS JOIN app a ON a.id = n.app WHERE c.epoch = j.value->>2 AND c.owner IS NOT NULL AND c.open = j.value->>3 "
        "AND c.states = zeroblob(j.value->>3) AND n.settled = 0 AND n.total = j.value->>3 AND n.expansions = 0 "
        "AND n.stopped = '' AND n.finished_at IS NULL",
        dumps([row[:5] for row in rows]),
    )
    if not found:
        return found
    asked = {row[0]: row for row in rows}
    # (chunk, deliveries, attempts, state, reason, end of the event, notification's id, number and app)
    ended = as_json([(asked[i][1], *asked[i][3:7], asked[i][8], uuid, *rest[-2:]) for i, uuid, *rest in found])
    for statement in _ENDS:
        db.run(statement, ended, now)
    return [row[:7] for row in found]


_ENDS = (
    "UPDATE chunk SET states = unhex(replace(hex(zeroblob(j.value->>1)), '00', '01')), open = 0, settled_at = ?2, "
    "owner = NULL FROM jsonb_each(?1) j WHERE chunk.id = j.value->>0",
    "INSERT INTO tally (notification, code, state, reason, n) "
    "SELECT value->>7, 1, value->>3, value->>4, value->>1 FROM jsonb_each(?1) WHERE ?2 IS NOT NULL",
    "UPDATE notification SET settled = total, attempts = attempts + j.value->>2, finished_at = ?2, paused = 0 "
    "FROM jsonb_each(?1) j WHERE notification.id = j.value->>7",
    "INSERT INTO event (at, app, kind, data) SELECT ?2, value->>8, 'notification.finished', "
    "'{\"notification\":' || json_quote(value->>6) || (value->>5) FROM jsonb_each(?1)",
)


def add_retries(db: Db, rows: Sequence[Sequence[Any]]) -> None:
    """Store these retry rows."""
    db.many(
        "INSERT INTO retry (notification, endpoint, binding, lane, due_at, attempt, waiting, reason, holds, since) SELECT "
        "value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9 FROM jsonb_each(?)",
        rows,
    )
