"""What ends deliveries without a send: cancelling, superseding, running out of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fanout.core.statemap import Codes, close
from fanout.core.states import DeliveryState
from fanout.errors import NotFound
from fanout.storage.chunks import NewChunk, gathered
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.ledger import Ledger, add_chunks, codes_of, finish_ready

__all__ = ["RETRY_COLUMNS", "add_backlog", "cancel", "end_open", "gather", "stop"]

RETRY_COLUMNS = "notification, attempt, endpoint, due_at, binding, lane, waiting"
"""What `gather` wants to know of a retry row."""

_CHUNKS = 500
_RETRIES = 50_000
"""How many are in memory at a time while a notification is stopped."""


def cancel(db: Db, app: str, uuid: str, now: float) -> int:
    """Stop it; how many chunks are still leased. Raises `NotFound`."""
    found = db.rows("id, finished_at", "notification WHERE uuid = ? AND app = ?", uuid, db.app(app))
    if not found:
        raise NotFound(f"There is no notification {uuid} in the app {app}.")
    id, finished_at = found[0]
    if finished_at is not None:
        return 0
    stop(db, [id], "cancelled", now)
    return int(db.value("SELECT count(*) FROM chunk WHERE notification = ? AND NOT done", id))


def stop(db: Db, notifications: Sequence[int], why: str, now: float) -> None:
    """Nothing more of these is leased; what nobody holds ends in the state `why` (or in that of an earlier stop)."""
    if not notifications:
        return
    chosen = dumps(list(notifications))
    db.run(
        "UPDATE notification SET stopped = ?, paused = 0 WHERE id IN (SELECT value FROM json_each(?)) AND stopped = '' "
        "AND finished_at IS NULL",
        why,
        chosen,
    )
    states = db.pairs("id, stopped", "notification WHERE id IN (SELECT value FROM json_each(?))", chosen)
    for id in notifications:
        end_open(db, id, states[id], "", now)
    # What is still held may have been paused: who looks for lost leases must find it.
    db.run(
        "UPDATE chunk SET lane = ~lane WHERE notification IN (SELECT value FROM json_each(?)) AND NOT done AND lane < 0",
        chosen,
    )
    finish_ready(db, notifications, now)


def end_open(db: Db, notification: int, state: str, reason: str, now: float, limit: int = 2**62) -> int:
    """End what is under no running lease, until `limit` is reached, and expand no further; how many deliveries ended.

    Does not look whether the notification has finished with that.
    """
    codes = codes_of(db, [notification])[notification]
    ended = 0
    dropped = db.value("SELECT count(*) FROM expansion WHERE notification = ?", notification)
    if dropped:
        db.run("DELETE FROM expansion WHERE notification = ?", notification)
        db.run(
            "UPDATE notification SET unexpanded = (expansions > 0 AND ?2), expansions = 0 WHERE id = ?1",
            notification,
            state == DeliveryState.EXPIRED,
        )
    while ended < limit:
        done = _end_chunks(db, notification, codes, state, reason, now, limit - ended)
        done = done or _end_retries(db, notification, codes, state, reason, now, limit - ended)
        if not done:
            break
        ended += done
    return ended


def _end_chunks(db: Db, id: int, codes: Codes, state: str, reason: str, now: float, limit: int) -> int:
    """One page of chunks that nobody holds."""
    rows = db.rows(
        "id, open, hex(states)",
        "(SELECT id, open, states FROM chunk WHERE notification = ? AND NOT done AND (owner IS NULL OR ready_at <= ?) "
        "ORDER BY id LIMIT ?)",
        id,
        now,
        min(_CHUNKS, limit),
    )
    ledger = Ledger(db, {id: codes})
    ended = 0
    for chunk, still_open, states in rows:
        if ended >= limit:
            break
        ledger.conclude(id, chunk, close(bytes.fromhex(states), codes, state, reason))
        ended += still_open
    ledger.write(now)
    return ended


def _end_retries(db: Db, id: int, codes: Codes, state: str, reason: str, now: float, limit: int) -> int:
    """One page of retry rows: they become chunks that are done."""
    rows = db.rows(
        RETRY_COLUMNS,
        "(SELECT * FROM retry WHERE notification = ? ORDER BY endpoint LIMIT ?)",
        id,
        min(_RETRIES, limit),
    )
    if not rows:
        return 0
    db.run("DELETE FROM retry WHERE notification = ? AND endpoint <= ?", id, rows[-1][2])
    chunks = gather(db, rows)
    ledger = Ledger(db, {id: codes})
    for chunk in chunks:
        applied = close(bytes(len(chunk.ids)), codes, state, reason)
        chunk.states = applied.states
        ledger.count(id, applied)
    add_chunks(db, chunks, now)
    ledger.write(now)
    return len(rows)


def gather(db: Db, rows: Sequence[Sequence[Any]]) -> list[NewChunk]:
    """The chunks to be added for these retry rows (see `RETRY_COLUMNS`), which have been deleted. Takes them off the backlog."""
    chunks, left = gathered(rows, db.context.chunk)
    add_backlog(db, left)
    db.many(
        "DELETE FROM backlog WHERE n = 0 AND (notification, binding, waiting) IN "
        "(SELECT value->>0, value->>1, value->>2 FROM json_each(?))",
        left,
    )
    return chunks


def add_backlog(db: Db, counts: Mapping[tuple[int, int, str], int]) -> None:
    """So many retry rows more (or fewer) wait for this reason, by (notification, binding, reason)."""
    db.many(
        "INSERT INTO backlog (notification, binding, waiting, n) SELECT value->>0, value->>1, value->>2, value->>3 "
        "FROM jsonb_each(?) WHERE true ON CONFLICT (notification, binding, waiting) DO UPDATE SET n = n + excluded.n",
        ([*key, n] for key, n in counts.items()),
    )
