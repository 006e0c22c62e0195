"""The ends of deliveries without a send: cancelling, superseding, running out of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fanout.core.statemap import Codes, close
from fanout.core.states import DeliveryState
from fanout.storage import lanes
from fanout.storage.chunks import NewChunk, gathered
from fanout.storage.sql.db import Db
from fanout.storage.sql.ledger import codes_of, hold, hold_named

__all__ = ["RETRY_COLUMNS", "add_backlog", "cancel", "end_open", "gather", "stop"]

RETRY_COLUMNS = "notification, attempt, endpoint, due_at, binding, lane, waiting"
"""The columns of a retry row that `gather` reads."""

_BACKLOG = {"notification": "bigint", "binding": "int", "waiting": "text"}
_CHUNKS = 500
_RETRIES = 50_000
"""How many are in memory at a time while a notification is stopped."""


async def cancel(db: Db, app: str, uuid: str, now: float) -> int:
    """Stop it; how many chunks are still leased. Raises `NotFound`."""
    id, _, finished_at, _ = await hold_named(db, app, uuid)
    if finished_at is not None:
        return 0
    await stop(db, [id], "cancelled", now)
    return int(await db.value("SELECT count(*) FROM chunk WHERE notification = $1 AND NOT done", id))


async def stop(db: Db, notifications: Sequence[int], why: str, now: float) -> None:
    """Nothing more of these is leased; a chunk without a lease ends in the state `why` (or in that of an earlier stop).
    Holds them."""
    chosen = await hold(db, notifications)
    if not chosen:
        return
    await db.run(
        "UPDATE notification SET stopped = CASE WHEN stopped = '' AND finished_at IS NULL THEN $2 ELSE stopped END, "
        f"paused = paused AND NOT (stopped = '' AND finished_at IS NULL) WHERE id {db.among(1, 'bigint')}",
        chosen,
        why,
    )
    states = dict(await db.rows(f"SELECT id, stopped FROM notification WHERE id {db.among(1, 'bigint')}", chosen))
    for id in chosen:
        await end_open(db, id, states[id], "", now)
    # A chunk that is still leased may have been paused: the search for lost leases must find it.
    await db.run(
        f"UPDATE chunk SET {lanes.FLIP} WHERE notification {db.among(1, 'bigint')} AND NOT done AND {lanes.PAUSED}",
        chosen,
    )
    await db.hot.finish_ready(db, chosen, now)


async def end_open(db: Db, notification: int, state: str, reason: str, now: float, limit: int = 2**62) -> int:
    """End deliveries under no running lease, until `limit` is reached, and expand no further; how many deliveries
    ended.

    The notification is held (`ledger.hold`). Does not look whether it has finished with that.
    """
    codes = (await codes_of(db, [notification]))[notification]
    ended = 0
    if await db.run("DELETE FROM expansion WHERE notification = $1", notification):
        expansions = await db.value(
            "UPDATE notification SET unexpanded = (expansions > 0 AND $2) WHERE id = $1 RETURNING expansions",
            notification,
            state == DeliveryState.EXPIRED,
        )
        ledger = db.hot.ledger(db)
        ledger.of(notification).expansions -= expansions
        await ledger.write(now)
    while ended < limit:
        done = await _end_chunks(db, notification, codes, state, reason, now, limit - ended)
        done = done or await _end_retries(db, notification, codes, state, reason, now, limit - ended)
        if not done:
            break
        ended += done
    return ended


async def _end_chunks(db: Db, id: int, codes: Codes, state: str, reason: str, now: float, limit: int) -> int:
    """One page of chunks without a lease."""
    rows = await db.rows(
        f"SELECT id, open, {db.binary('states')} FROM chunk WHERE notification = $1 AND NOT done AND (owner IS NULL OR ready_at <= $2) "
        f"ORDER BY id LIMIT $3{db.hold()}",
        id,
        now + db.skew,
        min(_CHUNKS, limit),
    )
    ledger = db.hot.ledger(db, {id: codes})
    ended = 0
    for chunk, still_open, states in rows:
        if ended >= limit:
            break
        ledger.conclude(id, chunk, close(db.bytes_of(states), codes, state, reason))
        ended += still_open
    await ledger.write(now)
    return ended


async def _end_retries(db: Db, id: int, codes: Codes, state: str, reason: str, now: float, limit: int) -> int:
    """One page of retry rows: they become chunks that are done."""
    rows = await db.rows(
        f"SELECT {RETRY_COLUMNS} FROM retry WHERE notification = $1 ORDER BY endpoint LIMIT $2",
        id,
        min(_RETRIES, limit),
    )
    if not rows:
        return 0
    await db.run("DELETE FROM retry WHERE notification = $1 AND endpoint <= $2", id, rows[-1][2])
    chunks = await gather(db, rows)
    ledger = db.hot.ledger(db, {id: codes})
    for chunk in chunks:
        applied = close(bytes(len(chunk.ids)), codes, state, reason)
        chunk.states = applied.states
        ledger.count(id, applied)
    await db.hot.add_chunks(db, chunks, now)
    await ledger.write(now)
    return len(rows)


async def gather(db: Db, rows: Sequence[Sequence[Any]]) -> list[NewChunk]:
    """The chunks to be added for these retry rows (see `RETRY_COLUMNS`), which have been deleted. Takes them off the
    backlog."""
    chunks, left = gathered(rows, db.context.chunk)
    # `+ 0`: by the key of the notification alone, and by no index of bindings.
    await db.many(
        f"UPDATE backlog AS b SET n = b.n + j.n FROM {db.given(1, **_BACKLOG, n='bigint')} "
        f"WHERE {db.keyed('b.notification', 'j.notification')} AND b.binding + 0 = j.binding AND b.waiting = j.waiting",
        [(*key, n) for key, n in left.items()],
    )
    await db.many(f"{db.deleting('backlog', 1, **_BACKLOG)} AND n <= 0", left)
    return chunks


async def add_backlog(db: Db, counts: Mapping[tuple[int, int, str], int]) -> None:
    """So many retry rows more wait for this reason, by (notification, binding, reason)."""
    await db.many(
        f"INSERT INTO backlog AS b (notification, binding, waiting, n) SELECT * FROM {db.given(1, **_BACKLOG, n='bigint')} "
        "WHERE true ON CONFLICT (notification, binding, waiting) DO UPDATE SET n = b.n + excluded.n",
        [(*key, n) for key, n in counts.items()],
    )
