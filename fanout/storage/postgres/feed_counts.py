"""How many items of a feed are unread and unseen."""

from __future__ import annotations

from fanout.core.counts import Counts
from fanout.core.shard import shard_of
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.feed_items import DEVICES, UNTOUCHED, find
from fanout.storage.postgres.feed_posts import next_seq

__all__ = ["counts", "look"]

_MEANT = "(i.topic IS NULL OR i.topic = ANY(m.topics))"


def _count(of: str, tables: str, where: str) -> str:
    return (
        f"SELECT count(*) FILTER (WHERE NOT {of}.read) AS unread, count(*) FILTER (WHERE i.id > f.seen) AS unseen "
        f"FROM {tables} WHERE {where} AND NOT {of}.deleted AND i.expires_at > $3"
    )


_COUNTS = (
    "WITH f AS MATERIALIZED (SELECT seq, coalesce((SELECT l.seen FROM feed_look l WHERE l.app = $1 AND l.usr = $2), 0) AS seen FROM feed), "
    f"m AS MATERIALIZED (SELECT ARRAY(SELECT DISTINCT unnest(e.tags) FROM {DEVICES.format('$4::smallint')}) AS topics) "
    "SELECT f.seq, f.seen, sum(c.unread)::bigint, sum(c.unseen)::bigint FROM f CROSS JOIN m CROSS JOIN LATERAL ("
    + " UNION ALL ".join(
        (
            _count("i", "feed_item i", "i.app = $1 AND i.usr = $2"),
            _count("i", "feed_item i", f"i.app = $1 AND i.usr = '' AND {_MEANT} AND {UNTOUCHED}"),
            _count("s", "feed_state s JOIN feed_item i ON i.id = s.item", f"s.app = $1 AND s.usr = $2 AND {_MEANT}"),
        )
    )
    + ") c GROUP BY f.seq, f.seen"
)


async def counts(db: Db, app: str, user: str, now: float) -> Counts:
    """In one statement: what it counts is what its number says."""
    number = await db.app(app)
    row = await db.row(_COUNTS, number, user, now, shard_of(user, b""))
    assert row is not None
    if not number and await db.app(app):
        # The app's first post was committed between the two statements.
        return await counts(db, app, user, now)
    seq, seen, unread, unseen = row
    return Counts(unread=unread, unseen=unseen, seen=seen, seq=seq)


async def look(db: Db, app: str, user: str, item: str | None, now: float) -> Counts | None:
    """She has seen her feed up to that item, or to the newest. Who writes to the feed is waited for only where it moves."""
    if item is None:
        number = await db.value("SELECT coalesce(max(id), 0) FROM feed_item")
    else:
        found = await find(db, app, user, item, now)
        if found is None:
            return None
        number = found.number
    place = await db.app(app, create=True)
    seen = await db.value("SELECT seen FROM feed_look WHERE app = $1 AND usr = $2", place, user)
    if number > (seen or 0):
        await db.run(
            "INSERT INTO feed_look (app, usr, seen, seq) VALUES ($1, $2, $3, $4) ON CONFLICT (app, usr) DO UPDATE "
            "SET seen = excluded.seen, seq = excluded.seq WHERE feed_look.seen < excluded.seen",
            place,
            user,
            number,
            await next_seq(db),
        )
    else:
        db.silent = True
    return await counts(db, app, user, now)
