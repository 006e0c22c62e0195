"""How many items of a feed are unread and unseen."""

from __future__ import annotations

from fanout.core.counts import Counts
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.feed_items import MEANT, UNTOUCHED, find, topics
from fanout.storage.sqlite.feed_posts import next_seq

__all__ = ["counts", "look"]

_ALIVE = "{}.deleted = 0 AND i.expires_at > ?3"


def _count(of: str, tables: str, where: str) -> str:
    return (
        f"SELECT count(*) FILTER (WHERE {of}.read = 0) AS unread, count(*) FILTER (WHERE i.id > (SELECT seen FROM f)) AS unseen "
        f"FROM {tables} WHERE {where} AND {_ALIVE.format(of)}"
    )


_COUNTS = (
    "WITH f AS MATERIALIZED (SELECT seq, coalesce((SELECT l.seen FROM feed_look l WHERE l.app = ?1 AND l.usr = ?2), 0) AS seen FROM feed) "
    "SELECT json_array(f.seq, f.seen, sum(c.unread), sum(c.unseen)) FROM f CROSS JOIN ("
    + " UNION ALL ".join(
        (
            _count("i", "feed_item i", "i.app = ?1 AND i.usr = ?2"),
            _count("i", "feed_item i", f"i.app = ?1 AND i.usr = '' AND {MEANT} AND {UNTOUCHED}"),
            _count(
                "s",
                "feed_state s CROSS JOIN feed_item i ON i.id = s.item",
                f"s.app = ?1 AND s.usr = ?2 AND {MEANT}",
            ),
        )
    )
    # SQLite takes as many arguments as the highest: all eight of a page, of which the topics are the last.
    + ") c"
)


def counts(db: Db, app: str, user: str, now: float) -> Counts:
    """In one statement: what it counts is what its number says."""
    number = db.app(app)
    seq, seen, unread, unseen = db.json(
        _COUNTS, number, user, now, None, None, None, None, dumps(topics(db, number, user))
    )
    return Counts(unread=unread, unseen=unseen, seen=seen, seq=seq)


def look(db: Db, app: str, user: str, item: str | None, now: float) -> Counts | None:
    """She has seen her feed up to that item, or to the newest."""
    if item is None:
        number = db.value("SELECT coalesce(max(id), 0) FROM feed_item")
    else:
        found = find(db, app, user, item, now)
        if found is None:
            return None
        number = found.number
    place = db.app(app, create=True)
    seen = db.value("SELECT seen FROM feed_look WHERE app = ? AND usr = ?", place, user) or 0
    if number > seen:
        db.run(
            "INSERT OR REPLACE INTO feed_look (app, usr, seen, seq) VALUES (?, ?, ?, ?)",
            place,
            user,
            number,
            next_seq(db),
        )
    return counts(db, app, user, now)
