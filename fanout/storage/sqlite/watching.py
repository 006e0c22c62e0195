"""What is read back: a notification, its deliveries one by one, which are stopped or finished, the event log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fanout.core.audit import Audit
from fanout.core.records import Event, Stored
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED
from fanout.storage.sql.standing import WORD
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.ledger import codes_of
from fanout.storage.sqlite.schema import APPLICATION_ID

__all__ = [
    "IS_AUDIT",
    "audited",
    "deliveries",
    "events",
    "finished",
    "notification",
    "probe",
    "record",
    "secret",
    "stopped",
]

_BATCH = 16
"""Chunks whose ids are in memory at a time while deliveries are listed."""

_STOPPED = "CASE WHEN stopped = '' AND paused THEN 'paused' ELSE stopped END"


def notification(db: Db, uuid: str) -> Stored | None:
    """The notification as it was put."""
    rows = db.rows(
        f"a.name, hex(n.content), n.lane, n.repeat, n.accepted_at, n.due_at, n.expires_at, {_STOPPED}",
        "notification n JOIN app a ON a.id = n.app WHERE n.uuid = ?",
        uuid,
    )
    if not rows:
        return None
    app, content, *rest = rows[0]
    return Stored(uuid, app, bytes.fromhex(content), *rest)


def stopped(db: Db, uuids: Sequence[str]) -> dict[str, str]:
    """Of these notifications, the stopped and the paused ones, with how."""
    return db.pairs(
        f"uuid, {_STOPPED}",
        "notification WHERE uuid IN (SELECT value FROM json_each(?)) AND (stopped <> '' OR paused)",
        dumps(list(uuids)),
    )


def finished(db: Db, uuids: Sequence[str]) -> set[str]:
    """Of these notifications, those that have finished or are unknown."""
    rows = db.rows(
        "uuid",
        "notification WHERE uuid IN (SELECT value FROM json_each(?)) AND finished_at IS NULL",
        dumps(list(uuids)),
    )
    return set(uuids) - {uuid for (uuid,) in rows}


def deliveries(db: Db, uuid: str, state: str | None, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(endpoint, state, reason) by endpoint. Chunks are read in the order of their lowest id, as far as the page needs."""
    id = db.value("SELECT id FROM notification WHERE uuid = ?", uuid)
    if id is None:
        return []
    codes = codes_of(db, [id])[id]
    found: list[tuple[int, str, str]] = []
    if state in (None, "pending"):
        rows = db.rows(
            f"endpoint, {WORD}",
            "(SELECT endpoint, binding, lane, waiting FROM retry WHERE notification = ? AND endpoint > ? ORDER BY endpoint LIMIT ?)",
            id,
            after,
            limit,
        )
        found = [(endpoint, "pending", waiting) for endpoint, waiting in rows]
    chunks = db.rows(
        "id, low",
        "(SELECT id, low FROM chunk WHERE notification = ? AND high > ? ORDER BY low, id)",
        id,
        after,
    )
    for first in range(0, len(chunks), _BATCH):
        batch = chunks[first : first + _BATCH]
        found.sort()
        if len(found) >= limit and found[limit - 1][0] < batch[0][1]:
            break
        rows = db.rows(
            f"CASE WHEN c.owner IS NOT NULL THEN c.waiting ELSE {WORD} END, hex(c.states), hex(a.ids)",
            "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN audience a ON a.chunk = c.id",
            dumps([chunk for chunk, _ in batch]),
        )
        for waiting, states, ids in rows:
            for endpoint, code in zip(unpack(ids), bytes.fromhex(states), strict=True):
                if endpoint <= after or code == RETRIED:
                    continue
                word, reason = ("pending", waiting) if code in (OPEN, MARKED, DOUBTFUL) else codes.pair(code)
                if state is None or state == word:
                    found.append((endpoint, word, reason))
    found.sort()
    return found[:limit]


def audited(db: Db, audit: Audit | None, function: Callable[..., Any], app: str, *arguments: Any) -> Any:
    """What `function` does for the app and answers, with a line of the audit log; the last argument is the time."""
    answer = function(db, app, *arguments)
    db.audit(arguments[-1], app, audit)
    return answer


def record(db: Db, app: str, audit: Audit, now: float) -> None:
    """A line of the audit log."""
    db.audit(now, app, audit)


def secret(db: Db) -> bytes:
    """With what the audit log hashes users."""
    return bytes(db.value("SELECT secret FROM feed"))


def probe(db: Db) -> None:
    """Write a page without changing what is on it: `PRAGMA application_id` writes the file's header whatever stood there."""
    db.run(f"PRAGMA application_id = {APPLICATION_ID}")


IS_AUDIT = "substr(kind, 1, 6) = 'audit.'"
"""Whether an event is a line of the audit log, as the index `event_audit` says it."""


def events(db: Db, after: int, limit: int, audit: bool) -> list[Event]:
    """Events after the cursor, oldest first."""
    which = IS_AUDIT if audit else f"NOT {IS_AUDIT}"
    rows = db.rows(
        "e.id, e.at, a.name, e.kind, json(e.data)",
        f"(SELECT * FROM event WHERE id > ? AND {which} ORDER BY id LIMIT ?) e CROSS JOIN app a ON a.id = e.app",
        after,
        limit,
    )
    return [Event(*row) for row in rows]
