"""Running out of time and out of retention. The feed's part is a transaction of its own, whose lock all feeds share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fanout.core.records import Expired
from fanout.storage.sql import endpoints, feed_tidy
from fanout.storage.sql.db import Db, column
from fanout.storage.sql.ledger import hold
from fanout.storage.sql.stopping import end_open

__all__ = ["expirable", "expire", "prunable", "prune"]

_NOTIFICATIONS = 256
"""Notifications that one call of `expire` ends at most."""

_PAST = """
SELECT n.id FROM notification n WHERE n.finished_at IS NULL AND n.expires_at <= $1 AND (
  EXISTS (SELECT 1 FROM chunk c WHERE c.notification = n.id AND NOT c.done AND (c.owner IS NULL OR c.ready_at <= $2))
  OR EXISTS (SELECT 1 FROM retry r WHERE r.notification = n.id)
  OR EXISTS (SELECT 1 FROM expansion e WHERE e.notification = n.id)
) ORDER BY n.expires_at LIMIT $3
"""


async def expirable(db: Db, now: float) -> tuple[bool, bool]:
    """Whether `expire` has something to do, and whether the feed has."""
    queue, feed = await db.row(
        f"SELECT EXISTS ({_PAST}) OR EXISTS (SELECT 1 FROM endpoint "
        f"WHERE state = 'active' AND expires_at IS NOT NULL AND expires_at <= $1), EXISTS ({feed_tidy.PAST})",
        now,
        now + db.skew,
        1,
    )
    return bool(queue), bool(feed)


async def expire(db: Db, now: float, limit: int) -> Expired:
    """End deliveries that wait past their time, and endpoints past theirs, up to about `limit`; how many. Rows that
    others have locked are left to them."""
    ids = await hold(db, await column(db, _PAST, now, now + db.skew, _NOTIFICATIONS), wait=False)
    rows = await db.rows(
        "SELECT n.id, n.stopped, n.stopped = '' AND n.expansions > 0, a.name FROM notification n JOIN app a ON a.id = n.app "
        f"WHERE n.id {db.among(1, 'bigint')} ORDER BY n.id",
        ids,
    )
    unexpanded: Counter[str] = Counter()
    done = 0
    for id, stopped, uncounted, app in rows:
        if done >= limit:
            break
        if uncounted:
            unexpanded[app] += 1
        state, reason = (stopped, "") if stopped else ("expired", "ttl")
        done += await end_open(db, id, state, reason, now, limit - done)
    await db.hot.finish_ready(db, ids, now)
    return Expired(done + await endpoints.expire(db, now, max(limit - done, 0)), unexpanded)


def _times(db: Db, now: float) -> tuple[float, ...]:
    keep = db.context.retention
    times = (keep.notifications, keep.idempotency_keys, keep.quarantine, keep.events, keep.audit)
    return tuple(now - each for each in times)


async def prunable(db: Db, now: float) -> bool:
    """Whether `prune` has something to do."""
    return bool(
        await db.value(
            "SELECT EXISTS (SELECT 1 FROM notification WHERE finished_at IS NOT NULL AND finished_at < $1) "
            "OR EXISTS (SELECT 1 FROM idempotency WHERE at < $2) "
            "OR EXISTS (SELECT 1 FROM endpoint WHERE state <> 'active' AND state_at < $3) "
            "OR EXISTS (SELECT 1 FROM decision WHERE notification < 0 AND at < $1) "
            f"OR EXISTS ({db.old_events(f'NOT {db.is_audit}', 4, 6)}) OR EXISTS ({db.old_events(db.is_audit, 5, 6)})",
            *_times(db, now),
            1,
        )
    )


async def prune(db: Db, now: float, limit: int) -> int:
    """Delete up to `limit` rows whose retention is over; how many."""
    notifications, keys, quarantine, events, audit = _times(db, now)
    free = db.hold(free=True)
    left = limit - await _prune_notifications(db, notifications, limit)
    left -= await db.many(
        db.deleting("idempotency", 1, app="int", key="text"),
        await db.rows(f"SELECT app, key FROM idempotency WHERE at < $1 ORDER BY at LIMIT $2{free}", keys, left),
    )
    old = await column(
        db,
        f"SELECT id FROM endpoint WHERE state <> 'active' AND state_at < $1 ORDER BY state_at LIMIT $2{free}",
        quarantine,
        left,
    )
    left -= await _delete(db, "endpoint", "id", old)
    # A binding's pauses explain the deliveries queued meanwhile, and are kept as long. They are few, and count for no
    # row.
    await db.run("DELETE FROM decision WHERE notification < 0 AND at < $1", notifications)
    for which, before in ((f"NOT {db.is_audit}", events), (db.is_audit, audit)):
        over = await column(db, f"{db.old_events(which, 1, 2)}{free}", before, left)
        left -= await _delete(db, "event", db.event_key, over)
    return limit - left


async def _prune_notifications(db: Db, before: float, limit: int) -> int:
    """Chunks first, so that a broadcast is deleted over several calls; a notification when it has none left."""
    ids = await column(
        db,
        "SELECT id FROM notification WHERE finished_at IS NOT NULL AND finished_at < $1 ORDER BY finished_at "
        f"LIMIT $2{db.hold(free=True)}",
        before,
        limit,
    )
    if not ids:
        return 0
    chunks = await column(db, f"SELECT id FROM chunk WHERE notification {db.among(1, 'bigint')} LIMIT $2", ids, limit)
    done = await _delete(db, "chunk", "id", chunks)
    await _delete(db, "audience", "chunk", chunks)
    if done < limit:
        # None of them has a chunk left.
        bare = ids[: limit - done]
        for table in ("tally", "backlog", "decision"):
            await _delete(db, table, "notification", bare)
        done += await _delete(db, "notification", "id", bare)
    return done


async def _delete(db: Db, table: str, column: str, keys: Sequence[int]) -> int:
    """Delete the rows with these numbers in a column; how many."""
    return await db.run(f"DELETE FROM {table} WHERE {column} {db.among(1, 'bigint')}", list(keys)) if keys else 0
