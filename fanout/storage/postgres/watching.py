"""What is read back: a notification, its deliveries one by one, which are stopped or finished, the event log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from fanout.core.audit import Audit
from fanout.core.records import Event, Stored
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED
from fanout.storage.packing import unpack
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import codes_of
from fanout.storage.sql.standing import WORD

__all__ = [
    "IS_AUDIT",
    "audited",
    "deliveries",
    "events",
    "finished",
    "notification",
    "number",
    "probe",
    "record",
    "secret",
    "stopped",
    "unnumbered",
]

IS_AUDIT = "left(kind, 6) = 'audit.'"
"""Whether an event is a line of the audit log, as the index `event_audit` says it."""

_BATCH = 16
"""Chunks whose ids are in memory at a time while deliveries are listed."""
_NUMBERED = 10_000
"""Events that get their numbers in one statement."""
_LOCK = "pg_advisory_xact_lock(1178685007, 2)"
"""Held while events get their numbers, so that those are committed in their order. The first number is `FANO` in ASCII."""

_STOPPED = "CASE WHEN stopped = '' AND paused THEN 'paused' ELSE stopped END"


async def notification(db: Db, uuid: str) -> Stored | None:
    """The notification as it was put."""
    row = await db.row(
        f"SELECT a.name, n.content, n.lane, n.repeat, n.accepted_at, n.due_at, n.expires_at, {_STOPPED} "
        "FROM notification n JOIN app a ON a.id = n.app WHERE n.uuid = $1",
        uuid,
    )
    return None if row is None else Stored(uuid, *row)


async def stopped(db: Db, uuids: Sequence[str]) -> dict[str, str]:
    """Of these notifications, the stopped and the paused ones, with how."""
    rows = await db.rows(
        f"SELECT uuid, {_STOPPED} FROM notification WHERE uuid = ANY($1::text[]) AND (stopped <> '' OR paused)",
        list(uuids),
    )
    return {row[0]: row[1] for row in rows}


async def finished(db: Db, uuids: Sequence[str]) -> set[str]:
    """Of these notifications, those that have finished or are unknown."""
    rows = await db.rows(
        "SELECT uuid FROM notification WHERE uuid = ANY($1::text[]) AND num_nulls(finished_at) = 1", list(uuids)
    )
    return set(uuids) - {row[0] for row in rows}


async def deliveries(db: Db, uuid: str, state: str | None, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(endpoint, state, reason) by endpoint. Chunks are read in the order of their lowest id, as far as the page needs."""
    id = await db.value("SELECT id FROM notification WHERE uuid = $1", uuid)
    if id is None:
        return []
    codes = (await codes_of(db, [id]))[id]
    found: list[tuple[int, str, str]] = []
    if state in (None, "pending"):
        rows = await db.rows(
            f"SELECT endpoint, {WORD} FROM (SELECT endpoint, binding, lane, waiting FROM retry "
            "WHERE notification = $1 AND endpoint > $2 ORDER BY endpoint LIMIT $3) r",
            id,
            after,
            limit,
        )
        found = [(endpoint, "pending", waiting) for endpoint, waiting in rows]
    chunks = await db.rows(
        "SELECT id, low FROM chunk WHERE notification = $1 AND high > $2 ORDER BY low, id", id, after
    )
    for first in range(0, len(chunks), _BATCH):
        batch = chunks[first : first + _BATCH]
        found.sort()
        if len(found) >= limit and found[limit - 1][0] < batch[0][1]:
            break
        rows = await db.rows(
            f"SELECT CASE WHEN c.owner IS NOT NULL THEN c.waiting ELSE {WORD} END, c.states, a.ids "
            "FROM chunk c JOIN audience a ON a.chunk = c.id WHERE c.id = ANY($1::bigint[])",
            [row[0] for row in batch],
        )
        for waiting, states, ids in rows:
            for endpoint, code in zip(unpack(ids), states, strict=True):
                if endpoint <= after or code == RETRIED:
                    continue
                word, reason = ("pending", waiting) if code in (OPEN, MARKED, DOUBTFUL) else codes.pair(code)
                if state is None or state == word:
                    found.append((endpoint, word, reason))
    found.sort()
    return found[:limit]


async def audited(db: Db, audit: Audit | None, function: Callable[..., Any], app: str, *arguments: Any) -> Any:
    """What `function` does for the app and answers, with a line of the audit log; the last argument is the time."""
    answer = await function(db, app, *arguments)
    await db.audit(arguments[-1], app, audit)
    return answer


async def record(db: Db, app: str, audit: Audit, now: float) -> None:
    """A line of the audit log."""
    await db.audit(now, app, audit)


async def secret(db: Db) -> bytes:
    """With what the audit log hashes users."""
    return bytes(await db.value("SELECT secret FROM feed"))


async def probe(db: Db) -> None:
    """Write a row without changing what it says."""
    await db.run("UPDATE probe SET n = n WHERE id = $1", 1)


# -- the event log


async def unnumbered(db: Db) -> bool:
    """Whether something has been committed that has no place in the log yet."""
    return bool(await db.value("SELECT EXISTS (SELECT 1 FROM event WHERE id IS NULL)"))


async def number(db: Db) -> None:
    """Give what has been committed its place in the log. One at a time does so: a number is committed after all that are lower."""
    await db.value(f"SELECT {_LOCK}")
    while await db.run(_NUMBER, _NUMBERED) == _NUMBERED:
        pass


_NUMBER = """
WITH n AS MATERIALIZED (
  SELECT number, nextval('event_id') AS id FROM (SELECT number FROM event WHERE id IS NULL ORDER BY number LIMIT $1) f
)
UPDATE event e SET id = n.id FROM n WHERE e.number = n.number
"""


async def events(db: Db, after: int, limit: int, audit: bool) -> list[Event]:
    """Events after the cursor, oldest first."""
    which = IS_AUDIT if audit else f"NOT {IS_AUDIT}"
    rows = await db.rows(
        "SELECT e.id, e.at, a.name, e.kind, e.data FROM event e JOIN app a ON a.id = e.app "
        f"WHERE e.id > $1 AND {which} ORDER BY e.id LIMIT $2",
        after,
        limit,
    )
    return [Event(id, at, app, kind, orjson.loads(data)) for id, at, app, kind, data in rows]
