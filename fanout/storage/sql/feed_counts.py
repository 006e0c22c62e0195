"""How many items of a feed are unread and unseen."""

from __future__ import annotations

from fanout.core.counts import Counts
from fanout.core.shard import shard_of
from fanout.storage.sql.db import Db, made_once, overwrite
from fanout.storage.sql.feed_items import UNTOUCHED, find, meant, topics
from fanout.storage.sql.feed_posts import next_seq

__all__ = ["counts", "mark_seen"]


def _count(of: str, tables: str, where: str) -> str:
    return (
        f"SELECT count(*) FILTER (WHERE NOT {of}.read) AS unread, count(*) FILTER (WHERE i.id > (SELECT seen FROM f)) AS unseen "
        f"FROM {tables} WHERE {where} AND NOT {of}.deleted AND i.expires_at > $3"
    )


@made_once
def _counts(db: Db) -> str:
    parts = (
        _count("i", "feed_item i", "i.app = $1 AND i.usr = $2"),
        _count("i", "feed_item i", f"i.app = $1 AND i.usr = '' AND {meant(db)} AND {UNTOUCHED}"),
        _count("s", "feed_state s JOIN feed_item i ON i.id = s.item", f"s.app = $1 AND s.usr = $2 AND {meant(db)}"),
    )
    return (
        "WITH f AS MATERIALIZED (SELECT seq, coalesce((SELECT l.seen FROM feed_look l WHERE l.app = $1 AND l.usr = $2), 0) AS seen "
        f"FROM feed), m AS MATERIALIZED ({topics(db, '$4')}) "
        "SELECT f.seq, f.seen, CAST(sum(c.unread) AS bigint), CAST(sum(c.unseen) AS bigint) "
        f"FROM f CROSS JOIN ({' UNION ALL '.join(parts)}) c GROUP BY f.seq, f.seen"
    )


async def counts(db: Db, app: str, user: str, now: float) -> Counts:
    """In one statement, so that counts and number agree."""
    number = await db.app(app)
    seq, seen, unread, unseen = await db.row(_counts(db), number, user, now, shard_of(user, b"\0"))
    if not number and await db.app(app):
        # The app's first post was committed between the two statements.
        return await counts(db, app, user, now)
    return Counts(unread=unread, unseen=unseen, seen=seen, seq=seq)


async def mark_seen(db: Db, app: str, user: str, item: str | None, now: float) -> Counts | None:
    """She has seen her feed up to that item, or to the newest. A writer to the feed is waited for only where the mark
    moves."""
    if item is None:
        number = await db.value("SELECT coalesce(max(id), 0) FROM feed_item")
    else:
        found = await find(db, app, user, item, now)
        if found is None:
            return None
        number = found.number
    app_number = await db.app(app, create=True)
    seen = await db.value("SELECT seen FROM feed_look WHERE app = $1 AND usr = $2", app_number, user)
    if number > (seen or 0):
        await db.run(
            f"INSERT INTO feed_look (app, usr, seen, seq) VALUES ($1, $2, $3, $4) ON CONFLICT (app, usr) {overwrite('seen', 'seq')} "
            "WHERE feed_look.seen < excluded.seen",
            app_number,
            user,
            number,
            await next_seq(db),
        )
    else:
        db.silent = True
    return await counts(db, app, user, now)
