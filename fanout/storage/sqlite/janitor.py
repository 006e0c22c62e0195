"""Running out of time and out of retention."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fanout.core.records import Expired
from fanout.storage.sql import endpoints
from fanout.storage.sql.stopping import end_open
from fanout.storage.sqlite import feed_tidy
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.ledger import finish_ready
from fanout.storage.sqlite.session import shared

__all__ = ["expirable", "expire", "prunable", "prune"]

IS_AUDIT = "substr(kind, 1, 6) = 'audit.'"

_NOTIFICATIONS = 256
"""Notifications that one call of `expire` ends at most."""

_PAST = """
SELECT n.id FROM notification n WHERE n.finished_at IS NULL AND n.expires_at <= ?1 AND (
  EXISTS (SELECT 1 FROM chunk c WHERE c.notification = n.id AND NOT c.done AND (c.owner IS NULL OR c.ready_at <= ?1))
  OR EXISTS (SELECT 1 FROM retry r WHERE r.notification = n.id)
  OR EXISTS (SELECT 1 FROM expansion e WHERE e.notification = n.id)
) ORDER BY n.expires_at LIMIT ?2
"""


def expirable(db: Db, now: float) -> bool:
    """Whether `expire` has something to do."""
    return bool(
        db.value(
            f"SELECT EXISTS ({_PAST}) OR EXISTS (SELECT 1 FROM endpoint "
            "WHERE state = 'active' AND expires_at IS NOT NULL AND expires_at <= ?1)",
            now,
            1,
        )
    ) or feed_tidy.expirable(db, now)


def expire(db: Db, now: float, limit: int) -> Expired:
    """End what waits past its time, and endpoints past theirs, up to about `limit`; how many."""
    done = shared(db, endpoints.expire, now, limit)
    ids = db.json(f"SELECT json_group_array(id) FROM ({_PAST})", now, _NOTIFICATIONS) if done < limit else []
    stopped = db.pairs(
        "id, stopped", "notification WHERE id IN (SELECT value FROM json_each(?)) AND stopped <> ''", dumps(ids)
    )
    unexpanded: Counter[str] = Counter()
    uncounted = db.pairs(
        "n.id, a.name",
        "notification n JOIN app a ON a.id = n.app WHERE n.id IN (SELECT value FROM json_each(?)) AND n.expansions > 0 AND n.stopped = ''",
        dumps(ids),
    )
    for id in ids:
        if done >= limit:
            break
        if id in uncounted:
            unexpanded[uncounted[id]] += 1
        state, reason = (stopped[id], "") if id in stopped else ("expired", "ttl")
        done += shared(db, end_open, id, state, reason, now, limit - done)
    finish_ready(db, ids, now)
    return Expired(done + feed_tidy.expire(db, now, limit - done), unexpanded)


def _times(db: Db, now: float) -> tuple[float, ...]:
    keep = db.context.retention
    times = (keep.notifications, keep.idempotency_keys, keep.quarantine, keep.events, keep.audit)
    return tuple(now - each for each in times)


def prunable(db: Db, now: float) -> bool:
    """Whether `prune` has something to do."""
    return bool(
        db.value(
            "SELECT EXISTS (SELECT 1 FROM notification WHERE finished_at IS NOT NULL AND finished_at < ?1) "
            "OR EXISTS (SELECT 1 FROM idempotency WHERE at < ?2) "
            "OR EXISTS (SELECT 1 FROM endpoint WHERE state <> 'active' AND state_at < ?3) "
            "OR EXISTS (SELECT 1 FROM decision WHERE notification < 0 AND at < ?1) "
            f"OR EXISTS (SELECT 1 FROM (SELECT at FROM event WHERE NOT {IS_AUDIT} ORDER BY id LIMIT 1) WHERE at < ?4) "
            f"OR EXISTS (SELECT 1 FROM (SELECT at FROM event WHERE {IS_AUDIT} ORDER BY id LIMIT 1) WHERE at < ?5)",
            *_times(db, now),
        )
    ) or feed_tidy.prunable(db, now)


def prune(db: Db, now: float, limit: int) -> int:
    """Delete up to `limit` rows whose retention is over; how many."""
    notifications, keys, quarantine, events, audit = _times(db, now)
    left = limit - _prune_notifications(db, notifications, limit)
    left -= _delete(
        db,
        "idempotency",
        "(app, key)",
        "value->>0, value->>1",
        db.rows("app, key", "(SELECT app, key FROM idempotency WHERE at < ? ORDER BY at LIMIT ?)", keys, left),
    )
    left -= _delete(
        db,
        "endpoint",
        "id",
        "value->>0",
        db.rows(
            "id",
            "(SELECT id FROM endpoint WHERE state <> 'active' AND state_at < ? ORDER BY state_at LIMIT ?)",
            quarantine,
            left,
        ),
    )
    # A binding's pauses explain what was queued meanwhile, and are kept as long. They are few, and count for no row.
    db.run("DELETE FROM decision WHERE notification < 0 AND at < ?", notifications)
    for which, before in ((f"NOT {IS_AUDIT}", events), (IS_AUDIT, audit)):
        old = db.rows("id", f"(SELECT id, at FROM event WHERE {which} ORDER BY id LIMIT ?) WHERE at < ?", left, before)
        left -= _delete(db, "event", "id", "value->>0", old)
    return limit - left + feed_tidy.prune(db, now, left)


def _prune_notifications(db: Db, before: float, limit: int) -> int:
    """Chunks first, so that a broadcast is deleted over several calls; a notification when it has none left."""
    done = 0
    over = db.rows(
        "id, uuid",
        "(SELECT id, uuid FROM notification WHERE finished_at IS NOT NULL AND finished_at < ? ORDER BY finished_at LIMIT ?)",
        before,
        limit,
    )
    bare: list[list[Any]] = []
    for id, _ in over:
        if done >= limit:
            break
        chunks = db.rows("id", "(SELECT id FROM chunk WHERE notification = ? LIMIT ?)", id, limit - done)
        done += _delete(db, "chunk", "id", "value->>0", chunks)
        _delete(db, "audience", "chunk", "value->>0", chunks)
        if done < limit:
            bare.append([id])
            done += 1
    _delete(db, "tally", "notification", "value->>0", bare)
    _delete(db, "decision", "notification", "value->>0", bare)
    _delete(db, "notification", "id", "value->>0", bare)
    return done


def _delete(db: Db, table: str, key: str, values: str, rows: list[list[Any]]) -> int:
    db.many(f"DELETE FROM {table} WHERE {key} IN (SELECT {values} FROM json_each(?))", rows)
    return len(rows)
