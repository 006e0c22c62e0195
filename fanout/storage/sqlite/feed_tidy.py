"""What time and erasure take out of the feed."""

from __future__ import annotations

from fanout.core.feed import user_digest
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.feed_posts import next_seq, write_tombstones

__all__ = ["erase", "expirable", "expire", "prunable", "prune"]


def expirable(db: Db, now: float) -> bool:
    """Whether `expire` has something to do."""
    return bool(db.value("SELECT EXISTS (SELECT 1 FROM feed_item WHERE deleted = 0 AND expires_at <= ?)", now))


def expire(db: Db, now: float, limit: int) -> int:
    """Items past their time become tombstones, each with a number of its own; how many."""
    ids = db.json(
        "SELECT json_group_array(id) FROM (SELECT id FROM feed_item WHERE deleted = 0 AND expires_at <= ? "
        "ORDER BY expires_at, id LIMIT ?)",
        now,
        max(limit, 0),
    )
    if ids:
        write_tombstones(db, ids, next_seq(db, len(ids)) - len(ids) + 1, now)
    return len(ids)


def _times(db: Db, now: float) -> tuple[float, float]:
    keep = db.context.retention
    return now - keep.tombstones, now - keep.quarantine


def prunable(db: Db, now: float) -> bool:
    """Whether `prune` has something to do."""
    tombstones, subscriptions = _times(db, now)
    return bool(
        db.value(
            "SELECT EXISTS (SELECT 1 FROM feed_item WHERE deleted = 1 AND modified_at < ?1) "
            "OR EXISTS (SELECT 1 FROM app a CROSS JOIN subscription s ON s.app = a.id WHERE s.expires_at < ?2) "
            "OR EXISTS (SELECT 1 FROM feed_erased WHERE at < ?1)",
            tombstones,
            subscriptions,
        )
    )


def prune(db: Db, now: float, limit: int) -> int:
    """Delete up to `limit` tombstones, expired subscriptions and marks of erasure whose retention is over; how many."""
    tombstones, subscriptions = _times(db, now)
    rows = db.rows(
        "id, seq",
        "(SELECT id, seq FROM feed_item WHERE deleted = 1 AND modified_at < ? ORDER BY modified_at, id LIMIT ?)",
        tombstones,
        max(limit, 0),
    )
    done = len(rows)
    if rows:
        chosen = dumps([row[0] for row in rows])
        for table, column in (
            ("feed_item", "id"),
            ("feed_state", "item"),
            ("feed_seen", "item"),
            ("feed_fallback", "item"),
        ):
            db.run(f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", chosen)
        db.run("UPDATE feed SET floor = max(floor, ?)", max(row[1] for row in rows))
    over = db.json(
        "SELECT json_group_array(id) FROM (SELECT s.id FROM app a CROSS JOIN subscription s ON s.app = a.id "
        "WHERE s.expires_at < ? ORDER BY s.id LIMIT ?)",
        subscriptions,
        max(limit - done, 0),
    )
    if over:
        db.run("DELETE FROM subscription WHERE id IN (SELECT value FROM json_each(?))", dumps(over))
        db.run("DELETE FROM feed_seen WHERE subscription IN (SELECT value FROM json_each(?))", dumps(over))
    done += len(over)
    marks = db.rows(
        "app, hex(digest), seq",
        "(SELECT * FROM feed_erased WHERE at < ? ORDER BY seq LIMIT ?)",
        tombstones,
        max(limit - done, 0),
    )
    if marks:
        db.many(
            "DELETE FROM feed_erased WHERE (app, digest) IN (SELECT value->>0, unhex(value->>1) FROM json_each(?))",
            marks,
        )
        db.run("UPDATE feed SET floor = max(floor, ?)", max(row[2] for row in marks))
    return done + len(marks)


def erase(db: Db, app: str, user: str, now: float) -> None:
    """Forget the user's items, states and subscriptions; what is kept is a digest, for readers with an old cursor."""
    number = db.app(app)
    mine = "(SELECT id FROM feed_item WHERE app = ?1 AND usr = ?2)"
    held = db.value(
        "SELECT EXISTS (SELECT 1 FROM feed_item WHERE app = ?1 AND usr = ?2) "
        "OR EXISTS (SELECT 1 FROM feed_state WHERE app = ?1 AND usr = ?2)",
        number,
        user,
    )
    for statement in (
        f"DELETE FROM feed_seen WHERE item IN {mine}",
        f"DELETE FROM feed_fallback WHERE item IN {mine}",
        "DELETE FROM feed_item WHERE app = ?1 AND usr = ?2",
        "DELETE FROM feed_state WHERE app = ?1 AND usr = ?2",
        "DELETE FROM feed_seen WHERE subscription IN (SELECT id FROM subscription WHERE app = ?1 AND usr = ?2)",
        "DELETE FROM subscription WHERE app = ?1 AND usr = ?2",
        "DELETE FROM feed_look WHERE app = ?1 AND usr = ?2",
    ):
        db.run(statement, number, user)
    if held:
        db.run(
            "INSERT OR REPLACE INTO feed_erased (app, digest, seq, at) VALUES (?, unhex(?), ?, ?)",
            number,
            user_digest(user).hex(),
            next_seq(db),
            now,
        )
