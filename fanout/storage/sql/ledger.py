"""The tables that the bookkeeping reads (`hot.Ledger` writes it), and the order of its locks.

A transaction that adds to a notification, or ends a part of it, locks the notification's row first (`hold`). Chunks,
retry rows, expansions, tallies and backlog of a notification change under that lock alone. The one exception is a lease
of a chunk that is in order, which changes nothing but the chunk, and never waits for a row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from fanout.core.statemap import Codes
from fanout.errors import NotFound
from fanout.storage.packing import unpack
from fanout.storage.sql.db import Db, column

__all__ = ["audiences_of", "codes_of", "hold", "hold_named"]


async def hold(db: Db, notifications: Iterable[int], *, wait: bool = True) -> list[int]:
    """Lock the rows of these notifications until the transaction ends, by number; those that are there.

    Without `wait`, rows that others have locked are left out.
    """
    wanted = list(notifications)
    if not wanted:
        return []
    which = f"id {db.among(1, 'bigint')}{db.hold('id', free=not wait)}"
    return sorted(await column(db, f"SELECT id FROM notification WHERE {which}", wanted))


async def hold_named(db: Db, app: str, uuid: str) -> tuple[int, str, float | None, bool]:
    """Lock the row of one notification of an app: number, `stopped`, `finished_at`, `paused`. Raises `NotFound`."""
    row = await db.row(
        f"SELECT id, stopped, finished_at, paused FROM notification WHERE uuid = $1 AND app = $2{db.hold()}",
        await db.own(app, uuid),
        await db.app(app),
    )
    if row is None:
        raise NotFound(f"There is no notification {uuid} in the app {app}: check the id and the app.")
    id, stopped, finished_at, paused = row
    return id, stopped, finished_at, paused


async def audiences_of(db: Db, chunks: Iterable[int]) -> dict[int, array[int]]:
    """The endpoints' ids of each of these chunks."""
    which = f"chunk {db.among(1, 'bigint')}"
    rows = await db.rows(f"SELECT chunk, {db.binary('ids')} FROM audience WHERE {which}", list(chunks))
    return {chunk: unpack(db.bytes_of(ids)) for chunk, ids in rows}


async def codes_of(db: Db, notifications: Iterable[int]) -> dict[int, Codes]:
    """The list of (state, reason) of each of these notifications."""
    pairs: dict[int, list[tuple[str, str]]] = {id: [] for id in notifications}
    rows = await db.rows(
        f"SELECT notification, state, reason FROM tally WHERE notification {db.among(1, 'bigint')} ORDER BY notification, code",
        list(pairs),
    )
    for id, state, reason in rows:
        pairs[id].append((state, reason))
    return {id: Codes(each) for id, each in pairs.items()}
