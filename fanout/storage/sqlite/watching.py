"""How things stand: status, deliveries, what is outstanding, the event log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fanout.core.records import Event, Status, Stored
from fanout.core.statemap import DOUBTFUL, OPEN, RETRIED
from fanout.core.states import FINAL_STATES, NotificationState, Waiting
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.ledger import codes_of

__all__ = ["deliveries", "events", "notification", "outstanding", "status", "stopped"]

_BATCH = 16
"""Chunks whose ids are in memory at a time while deliveries are listed."""


def notification(db: Db, uuid: str) -> Stored | None:
    """The notification as it was put."""
    rows = db.rows(
        "a.name, hex(n.content), n.lane, n.repeat, n.accepted_at, n.due_at, n.expires_at, n.stopped",
        "notification n JOIN app a ON a.id = n.app WHERE n.uuid = ?",
        uuid,
    )
    if not rows:
        return None
    app, content, *rest = rows[0]
    return Stored(uuid, app, bytes.fromhex(content), *rest)


def stopped(db: Db, uuids: Sequence[str]) -> dict[str, str]:
    """Of these notifications, the stopped ones, with how."""
    return db.pairs(
        "uuid, stopped",
        "notification WHERE uuid IN (SELECT value FROM json_each(?)) AND stopped <> ''",
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


def status(db: Db, uuid: str) -> Status | None:
    """The notification's state of affairs, read in one statement, so that it adds up."""
    rows = db.rows(
        "a.name, n.total, n.settled, n.expansions, n.attempts, n.stopped, n.accepted_at, n.due_at, n.expires_at, "
        "n.finished_at, "
        "json((SELECT json_group_array(json_array(state, reason, n)) FROM tally WHERE notification = n.id)), "
        "json((SELECT json_group_array(json_array(waiting, m)) FROM (SELECT waiting, sum(open) AS m FROM chunk "
        "WHERE notification = n.id AND open > 0 GROUP BY waiting))), "
        "json((SELECT json_group_array(json_array(waiting, m)) FROM (SELECT waiting, n AS m FROM backlog "
        "WHERE notification = n.id))), "
        "EXISTS (SELECT 1 FROM expansion WHERE notification = n.id AND binding = 0)",
        "notification n JOIN app a ON a.id = n.app WHERE n.uuid = ?",
        uuid,
    )
    if not rows:
        return None
    (app, total, settled, expansions, attempts, stopped, accepted_at, due_at, expires_at, finished_at) = rows[0][:10]
    ended, in_chunks, in_retries, scheduled = rows[0][10:]
    counts = {"pending": total - settled} | dict.fromkeys(FINAL_STATES, 0)
    reasons: dict[str, dict[str, int]] = {}
    for state, reason, n in ended:
        counts[state] += n
        reasons.setdefault(state, {})[reason] = n
    pending: Counter[str] = Counter()
    for waiting, n in in_chunks + in_retries:
        pending[waiting] += n
    return Status(
        id=uuid,
        app=app,
        state=_state(stopped, finished_at, scheduled, expansions),
        total=None if expansions else total,
        counts=counts,
        pending_by_reason=dict(pending),
        reasons=reasons,
        attempts=attempts,
        accepted_at=accepted_at,
        due_at=due_at,
        expires_at=expires_at,
        finished_at=finished_at,
        oldest_pending_at=due_at if finished_at is None else None,
    )


def _state(stopped: str, finished_at: float | None, scheduled: int, expansions: int) -> str:
    if stopped:
        return NotificationState.CANCELLED.value
    if finished_at is not None:
        return NotificationState.DONE.value
    if scheduled:
        return NotificationState.SCHEDULED.value
    return NotificationState.EXPANDING.value if expansions else NotificationState.RUNNING.value


def deliveries(db: Db, uuid: str, state: str | None, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(endpoint, state, reason) by endpoint. Chunks are read in the order of their lowest id, as far as the page needs."""
    id = db.value("SELECT id FROM notification WHERE uuid = ?", uuid)
    if id is None:
        return []
    codes = codes_of(db, [id])[id]
    found: list[tuple[int, str, str]] = []
    if state in (None, "pending"):
        rows = db.rows(
            "endpoint, waiting",
            "(SELECT endpoint, waiting FROM retry WHERE notification = ? AND endpoint > ? ORDER BY endpoint LIMIT ?)",
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
            "c.waiting, hex(c.states), hex(a.ids)",
            "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN audience a ON a.chunk = c.id",
            dumps([chunk for chunk, _ in batch]),
        )
        for waiting, states, ids in rows:
            for endpoint, code in zip(unpack(ids), bytes.fromhex(states), strict=True):
                if endpoint <= after or code == RETRIED:
                    continue
                word, reason = ("pending", waiting) if code in (OPEN, DOUBTFUL) else codes.pair(code)
                if state is None or state == word:
                    found.append((endpoint, word, reason))
    found.sort()
    return found[:limit]


def outstanding(db: Db, app: str | None) -> dict[str, int]:
    """Deliveries of unfinished notifications by what they wait for."""
    chunks = backlog = expansions = ""
    arguments: tuple[int, ...] = ()
    if app is not None:
        chunks = " AND binding IN (SELECT id FROM binding WHERE app = ?1)"
        backlog = " WHERE (SELECT app FROM notification WHERE id = backlog.notification) = ?1"
        expansions = " WHERE app = ?1"
        arguments = (db.app(app),)
    rows = db.rows(
        "word, n",
        "(SELECT CASE WHEN owner IS NULL THEN waiting ELSE 'leased' END AS word, sum(open) AS n FROM chunk "
        f"WHERE open > 0{chunks} GROUP BY 1 "
        f"UNION ALL SELECT waiting, sum(n) FROM backlog{backlog} GROUP BY 1 "
        f"UNION ALL SELECT CASE binding WHEN 0 THEN '{Waiting.SCHEDULED.value}' ELSE '{Waiting.READY.value}' END, count(*) "
        f"FROM expansion{expansions} GROUP BY 1)",
        *arguments,
    )
    found: Counter[str] = Counter()
    for word, n in rows:
        found[word] += n
    return dict(found)


def events(db: Db, after: int, limit: int) -> list[Event]:
    """Events after the cursor, oldest first."""
    rows = db.rows(
        "e.id, e.at, a.name, e.kind, json(e.data)",
        "(SELECT * FROM event WHERE id > ? ORDER BY id LIMIT ?) e CROSS JOIN app a ON a.id = e.app",
        after,
        limit,
    )
    return [Event(*row) for row in rows]
