"""The reads: a notification, its deliveries one by one, which are stopped or finished, the event log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import orjson

from fanout.core.audit import Audit
from fanout.core.records import Event, Stored
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED
from fanout.storage.packing import unpack
from fanout.storage.sql.db import Db, column
from fanout.storage.sql.ledger import codes_of
from fanout.storage.sql.standing import WORD

__all__ = ["audited", "deliveries", "events", "finished", "notification", "record", "secret", "stopped"]

T = TypeVar("T")

_BATCH = 16
"""Chunks whose ids are in memory at a time while deliveries are listed."""

_STOPPED = "CASE WHEN stopped = '' AND paused THEN 'paused' ELSE stopped END"


async def notification(db: Db, uuid: str) -> Stored | None:
    """The notification as it was put."""
    return (await notifications(db, [uuid])).get(uuid)


async def notifications(db: Db, uuids: Sequence[str]) -> dict[str, Stored | None]:
    """These notifications as they were put, by id, as far as they are there."""
    rows = await db.rows(
        f"SELECT n.uuid, (SELECT name FROM app WHERE id = n.app), {db.binary('n.content')}, n.lane, n.repeat, n.accepted_at, "
        f"n.due_at, n.expires_at, {_STOPPED} FROM notification n WHERE n.uuid {db.among(1, 'text')}",
        list(uuids),
    )
    return {uuid: Stored(uuid, app, db.bytes_of(content), *rest) for uuid, app, content, *rest in rows}


async def stopped(db: Db, uuids: Sequence[str]) -> dict[str, str]:
    """Of these notifications, the stopped and the paused ones, with how."""
    rows = await db.rows(
        f"SELECT uuid, {_STOPPED} FROM notification WHERE uuid {db.among(1, 'text')} AND (stopped <> '' OR paused)",
        list(uuids),
    )
    return dict(rows)


async def finished(db: Db, uuids: Sequence[str]) -> set[str]:
    """Of these notifications, those that have finished or are unknown."""
    # `coalesce`: by the index of ids, and by none of the unfinished.
    unfinished = f"uuid {db.among(1, 'text')} AND coalesce(finished_at, -1) = -1"
    return set(uuids).difference(await column(db, f"SELECT uuid FROM notification WHERE {unfinished}", list(uuids)))


async def deliveries(db: Db, uuid: str, state: str | None, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(endpoint, state, reason) by endpoint. Chunks are read in the order of their lowest id, as far as the page
    needs."""
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
            f"SELECT CASE WHEN c.owner IS NOT NULL THEN c.waiting ELSE {WORD} END, {db.binary('c.states')}, {db.binary('a.ids')} "
            f"FROM chunk c JOIN audience a ON a.chunk = c.id WHERE c.id {db.among(1, 'bigint')}",
            [chunk for chunk, _ in batch],
        )
        for waiting, states, ids in rows:
            for endpoint, code in zip(unpack(db.bytes_of(ids)), db.bytes_of(states), strict=True):
                if endpoint <= after or code == RETRIED:
                    continue
                word, reason = ("pending", waiting) if code in (OPEN, MARKED, DOUBTFUL) else codes.pair(code)
                if state is None or state == word:
                    found.append((endpoint, word, reason))
    found.sort()
    return found[:limit]


async def audited(db: Db, audit: Audit | None, operation: Callable[..., Awaitable[T]], app: str, *arguments: Any) -> T:
    """The effect of `operation` on the app and its answer, with a line of the audit log; the last argument is the
    time."""
    answer = await operation(db, app, *arguments)
    await db.audit(arguments[-1], app, audit)
    return answer


async def record(db: Db, app: str, audit: Audit, now: float) -> None:
    """A line of the audit log."""
    await db.audit(now, app, audit)


async def secret(db: Db) -> bytes:
    """The secret with which the audit log hashes users."""
    return bytes(await db.value("SELECT secret FROM feed"))


async def events(db: Db, after: int, limit: int, audit: bool) -> list[Event]:
    """Events after the cursor, oldest first."""
    which = db.is_audit if audit else f"NOT {db.is_audit}"
    rows = await db.rows(
        f"SELECT e.id, e.at, a.name, e.kind, e.data FROM (SELECT * FROM event WHERE id > $1 AND {which} ORDER BY id LIMIT $2) e "
        "JOIN app a ON a.id = e.app",
        after,
        limit,
    )
    found = [Event(id, at, app, kind, orjson.loads(data)) for id, at, app, kind, data in rows]
    return sorted(found, key=lambda event: event.id)
