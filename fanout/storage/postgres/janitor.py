"""Running out of time and out of retention. The feed's part is a transaction of its own (`feed_tidy`), whose lock is everybody's."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fanout.core.records import Expired
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.feed_tidy import EXPIRABLE
from fanout.storage.postgres.ledger import finish_ready
from fanout.storage.sql import endpoints
from fanout.storage.sql.ledger import hold
from fanout.storage.sql.stopping import end_open

__all__ = ["expirable", "expire", "prunable", "prune"]

IS_AUDIT = "left(kind, 6) = 'audit.'"

_NOTIFICATIONS = 256
"""Notifications that one call of `expire` ends at most."""

_PAST = """
SELECT n.id FROM notification n WHERE n.finished_at IS NULL AND n.expires_at <= $1 AND (
  EXISTS (SELECT 1 FROM chunk c WHERE c.notification = n.id AND NOT c.done AND (c.owner IS NULL OR c.ready_at <= $2))
  OR EXISTS (SELECT 1 FROM retry r WHERE r.notification = n.id)
  OR EXISTS (SELECT 1 FROM expansion e WHERE e.notification = n.id)
) ORDER BY n.expires_at LIMIT $3
"""


async def expirable(db: Db, now: float) -> Any:
    """Whether `expire` has something to do, and whether `feed_tidy.expire` has."""
    return await db.row(
        f"SELECT EXISTS ({_PAST}) OR EXISTS (SELECT 1 FROM endpoint "
        f"WHERE state = 'active' AND expires_at IS NOT NULL AND expires_at <= $1), {EXPIRABLE}",
        now,
        now + db.skew,
        1,
    )


async def expire(db: Db, now: float, limit: int) -> Expired:
    """End what waits past its time, and endpoints past theirs, up to about `limit`; how many. What others are at is left to them."""
    past = await db.rows(_PAST, now, now + db.skew, _NOTIFICATIONS)
    ids = await hold(db, [row[0] for row in past], wait=False)
    stopped = dict(
        await db.rows("SELECT id, stopped FROM notification WHERE id = ANY($1::bigint[]) AND stopped <> ''", ids)
    )
    uncounted = dict(
        await db.rows(
            "SELECT n.id, a.name FROM notification n JOIN app a ON a.id = n.app WHERE n.id = ANY($1::bigint[]) AND n.expansions > 0 "
            "AND n.stopped = ''",
            ids,
        )
    )
    unexpanded: Counter[str] = Counter()
    done = 0
    for id in ids:
        if done >= limit:
            break
        if id in uncounted:
            unexpanded[uncounted[id]] += 1
        state, reason = (stopped[id], "") if id in stopped else ("expired", "ttl")
        done += await end_open(db, id, state, reason, now, limit - done)
    await finish_ready(db, ids, now)
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
            f"OR EXISTS (SELECT 1 FROM event WHERE at < $4 AND NOT {IS_AUDIT}) "
            f"OR EXISTS (SELECT 1 FROM event WHERE at < $5 AND {IS_AUDIT})",
            *_times(db, now),
        )
    )


async def prune(db: Db, now: float, limit: int) -> int:
    """Delete up to `limit` rows whose retention is over; how many."""
    notifications, keys, quarantine, events, audit = _times(db, now)
    left = limit - await _prune_notifications(db, notifications, limit)
    left -= await _delete(
        db,
        "DELETE FROM idempotency WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency WHERE at < $1 ORDER BY at LIMIT $2 "
        "FOR UPDATE SKIP LOCKED))",
        keys,
        left,
    )
    old = await db.rows(
        "SELECT id FROM endpoint WHERE state <> 'active' AND state_at < $1 ORDER BY state_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        quarantine,
        left,
    )
    if old:
        await db.run(
            "DELETE FROM endpoint e USING unnest($1::bigint[]) j (id) WHERE e.id = ANY (ARRAY[j.id]) AND e.shard = (j.id & 15)::smallint",
            [row[0] for row in old],
        )
    left -= len(old)
    # A binding's pauses explain what was queued meanwhile, and are kept as long. They are few, and count for no row.
    await db.run("DELETE FROM decision WHERE notification < 0 AND at < $1", notifications)
    for which, before in ((f"NOT {IS_AUDIT}", events), (IS_AUDIT, audit)):
        left -= await _delete(
            db,
            f"DELETE FROM event WHERE number = ANY (ARRAY(SELECT number FROM event WHERE at < $1 AND {which} "
            "ORDER BY at, number LIMIT $2 FOR UPDATE SKIP LOCKED))",
            before,
            left,
        )
    return limit - left


async def _prune_notifications(db: Db, before: float, limit: int) -> int:
    """Chunks first, so that a broadcast is deleted over several calls; a notification when it has none left."""
    over = await db.rows(
        "SELECT id FROM notification WHERE finished_at IS NOT NULL AND finished_at < $1 ORDER BY finished_at LIMIT $2 "
        "FOR UPDATE SKIP LOCKED",
        before,
        limit,
    )
    if not over:
        return 0
    ids = [row[0] for row in over]
    chunks = await db.rows(
        "DELETE FROM chunk WHERE id = ANY (ARRAY(SELECT id FROM chunk WHERE notification = ANY($1::bigint[]) LIMIT $2)) RETURNING id",
        ids,
        limit,
    )
    await db.run("DELETE FROM audience WHERE chunk = ANY($1::bigint[])", [row[0] for row in chunks])
    done = len(chunks)
    if done < limit:
        # None of them has a chunk left.
        bare = ids[: limit - done]
        for table, column in (
            ("tally", "notification"),
            ("backlog", "notification"),
            ("decision", "notification"),
            ("notification", "id"),
        ):
            await db.run(f"DELETE FROM {table} WHERE {column} = ANY($1::bigint[])", bare)
        done += len(bare)
    return done


async def _delete(db: Db, sql: str, before: float, limit: int) -> int:
    """How many rows a statement deleted.

    What it picks stands in an array, which is made once: an `IN` over the same query may be a join that runs it again, and each time
    it skips what the statement has just deleted, and picks as many others.
    """
    return await db.run(sql, before, limit)
