"""The removal of feed items, by time and by erasure."""

from __future__ import annotations

from fanout.core.feed import user_digest
from fanout.storage.sql.db import Db, column, overwrite
from fanout.storage.sql.feed_posts import next_seq, write_tombstones
from fanout.storage.sql.feed_subscriptions import delete

__all__ = ["PAST", "erase", "expire", "prunable", "prune"]


PAST = "SELECT 1 FROM feed_item WHERE NOT deleted AND expires_at <= $1"
"""Items whose time is over."""


async def _alone(db: Db) -> None:
    """From here on no other transaction writes to the feed."""
    await db.value(f"SELECT seq FROM feed WHERE id = 1{db.hold()}")


async def expire(db: Db, now: float, limit: int) -> int:
    """Items past their time become tombstones, each with a number of its own; how many."""
    await _alone(db)
    ids = await column(
        db,
        "SELECT id FROM feed_item WHERE NOT deleted AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2",
        now,
        max(limit, 0),
    )
    if ids:
        await write_tombstones(db, ids, await next_seq(db, len(ids)) - len(ids) + 1, now)
    return len(ids)


def _times(db: Db, now: float) -> tuple[float, float]:
    keep = db.context.retention
    return now - keep.tombstones, now - keep.quarantine


async def prunable(db: Db, now: float) -> bool:
    """Whether `prune` has something to do."""
    return bool(
        await db.value(
            "SELECT EXISTS (SELECT 1 FROM feed_item WHERE deleted AND modified_at < $1) "
            "OR EXISTS (SELECT 1 FROM app a CROSS JOIN subscription s WHERE s.app = a.id AND s.expires_at < $2) "
            "OR EXISTS (SELECT 1 FROM feed_erased WHERE at < $1)",
            *_times(db, now),
        )
    )


async def prune(db: Db, now: float, limit: int) -> int:
    """Delete up to `limit` tombstones, expired subscriptions and marks of erasure whose retention is over; how many.

    A tombstone is never changed. Only the floor is shared with other work, and is raised last.
    """
    tombstones, subscriptions = _times(db, now)
    await db.exclusive("feed")
    rows = await db.rows(
        "SELECT id, seq FROM feed_item WHERE deleted AND modified_at < $1 ORDER BY modified_at, id LIMIT $2",
        tombstones,
        max(limit, 0),
    )
    done = len(rows)
    floor = max((row[1] for row in rows), default=0)
    if rows:
        chosen = [row[0] for row in rows]
        await db.run(f"DELETE FROM feed_item WHERE id {db.among(1, 'bigint')}", chosen)
        for table in ("feed_state", "feed_seen", "feed_fallback"):
            await db.run(f"DELETE FROM {table} WHERE item {db.among(1, 'bigint')}", chosen)
    over = await column(
        db,
        "SELECT s.id FROM app a CROSS JOIN subscription s WHERE s.app = a.id AND s.expires_at < $1 "
        f"ORDER BY s.id LIMIT $2{db.hold(of='s', free=True)}",
        subscriptions,
        max(limit - done, 0),
    )
    await delete(db, over)
    done += len(over)
    marks = await db.rows(
        f"SELECT app, {db.binary('digest')}, seq FROM feed_erased WHERE at < $1 ORDER BY seq LIMIT $2{db.hold()}",
        tombstones,
        max(limit - done, 0),
    )
    await db.many(
        db.deleting("feed_erased", 1, app="int", digest="bytea"),
        [(app, db.bytes_of(digest)) for app, digest, _ in marks],
    )
    floor = max([floor, *(row[2] for row in marks)])
    if floor:
        await db.run("UPDATE feed SET floor = $1 WHERE id = 1 AND floor < $1", floor)
    return done + len(marks)


async def erase(db: Db, app: str, user: str, now: float) -> None:
    """Forget the user's items, states and subscriptions; only a digest is kept, for readers with an old cursor."""
    number = await db.app(app)
    await _alone(db)  # so that an item posted to her at this moment is either here by now, or comes after
    mine = "(SELECT id FROM feed_item WHERE app = $1 AND usr = $2)"
    owned = await db.value(
        "SELECT EXISTS (SELECT 1 FROM feed_item WHERE app = $1 AND usr = $2) "
        "OR EXISTS (SELECT 1 FROM feed_state WHERE app = $1 AND usr = $2)",
        number,
        user,
    )
    for statement in (
        f"DELETE FROM feed_seen WHERE item IN {mine}",
        f"DELETE FROM feed_fallback WHERE item IN {mine}",
        "DELETE FROM feed_item WHERE app = $1 AND usr = $2",
        "DELETE FROM feed_state WHERE app = $1 AND usr = $2",
        "DELETE FROM feed_seen WHERE subscription IN (SELECT id FROM subscription WHERE app = $1 AND usr = $2)",
        "DELETE FROM subscription WHERE app = $1 AND usr = $2",
        "DELETE FROM feed_look WHERE app = $1 AND usr = $2",
    ):
        await db.run(statement, number, user)
    if owned:
        await db.run(
            "INSERT INTO feed_erased (app, digest, seq, at) VALUES ($1, $2, $3, $4) "
            f"ON CONFLICT (app, digest) {overwrite('seq', 'at')}",
            number,
            user_digest(user),
            await next_seq(db),
            now,
        )
