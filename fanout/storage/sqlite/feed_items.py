"""Feed items read: pages, single items, and whose feeds have changed.

A page is read in several small statements, which is four times faster than one that does it all. They need not see one moment's
state: the last number is read first, and what changes afterwards has a higher one, so that it is left out here and comes next.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fanout.core.feed import SHARED, FeedItem, FeedPage, FeedQuery, Touched, user_digest
from fanout.storage.feed_items import item_of, page_of
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["COLUMNS", "MEANT", "UNTOUCHED", "find", "identity", "page", "pushes", "topics", "touched"]

_SHARED = "i.uuid, i.id, i.external, i.grp, i.priority, i.created_at, i.expires_at, i.display_until, i.fallback_at, i.usr = ''"
_OWN = "i.seq, iif(i.deleted, '', i.content), i.modified_at, i.read, i.action, i.deleted, i.writer"
_STATE = "s.seq, iif(s.deleted, '', i.content), s.modified_at, s.read, s.action, s.deleted, s.writer"
COLUMNS = f"{_SHARED}, {_OWN}"
"""What `item_of` wants of an item `i` that no state of the user's hides."""
_THEIRS = f"{_SHARED}, {_STATE}"

MEANT = "(i.topic IS NULL OR i.topic IN (SELECT value FROM json_each(?8)))"
_NAMED = "i.uuid IN (SELECT value FROM json_each(?10)) OR i.external IN (SELECT value FROM json_each(?10))"
UNTOUCHED = "NOT EXISTS (SELECT 1 FROM feed_state s WHERE s.item = i.id AND s.usr = ?2)"


def identity(db: Db) -> int:
    """32 bits of this database."""
    return int(db.value("SELECT identity FROM feed"))


def topics(db: Db, app: int, user: str) -> list[str]:
    """Those that the user's devices are in."""
    found: list[str] = db.json(
        "SELECT json_group_array(DISTINCT t.value) FROM endpoint e CROSS JOIN json_each(e.tags) t "
        "WHERE e.app = ? AND e.usr = ? AND e.usr <> '' AND e.state IN ('active', 'gone', 'expired')",
        app,
        user,
    )
    return sorted(found)


def page(db: Db, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
    """A page of the user's feed.

    An item of everybody that she has changed is read from her state of it only, so that each part follows an index in the order
    of `seq` and ends at the limit.
    """
    number = db.app(app)
    newest = query.newest_before is not None
    start = query.newest_before if newest else query.after
    head, floor, *there = db.json(_HEAD, number, user, user_digest(user).hex(), -1 if newest else start)
    member = topics(db, number, user)
    until = min(head, query.until)
    ids = None if query.ids is None else dumps(query.ids)
    arguments = (number, user, now, start, until, query.limit + 1, query.action, dumps(member), query.group, ids)
    rows: list[list[Any]] = []
    asked = (query.action is not None, query.group is not None, ids is not None, query.content)
    for sql, some in zip(_page_sql(newest, query.status, query.unread, *asked), there, strict=True):
        if some:
            rows += db.json(sql, *arguments)
    return page_of(rows, query, head, floor, member)


_HEAD = """
SELECT json_array(
  f.seq, max(f.floor, coalesce((SELECT e.seq FROM feed_erased e WHERE e.app = ?1 AND e.digest = unhex(?3)), 0)),
  EXISTS (SELECT 1 FROM feed_item WHERE app = ?1 AND usr = ?2 AND seq > ?4),
  EXISTS (SELECT 1 FROM feed_item WHERE app = ?1 AND usr = '' AND seq > ?4),
  EXISTS (SELECT 1 FROM feed_state WHERE app = ?1 AND usr = ?2 AND seq > ?4)) FROM feed f
"""
"""Where the feed stands, and which of the three parts of a page have something after the number ?4: mostly one or none."""


@lru_cache
def _page_sql(
    newest: bool, status: str | None, unread: bool | None, action: bool, group: bool, ids: bool, content: bool
) -> tuple[str, str, str]:
    """Her own items; those of everybody; and those of everybody that she has changed. Each with the same ten arguments:
    app, user, now, where to begin, the last number, limit, action, topics, group, ids."""
    named = " AND i.grp = ?9" * group + f" AND ({_NAMED})" * ids
    own, theirs = [each if content else each.replace("i.content", "''") for each in (COLUMNS, _THEIRS)]

    def sql(columns: str, of: str, tables: str, where: str) -> str:
        order = "i.id DESC" if newest else f"{of}.seq"
        begin = "i.id < ?4" if newest else f"{of}.seq > ?4"
        return (
            f"SELECT json_group_array(json(row)) FROM (SELECT json_array({columns}) AS row FROM {tables} "
            f"WHERE {where} AND {begin} AND {of}.seq <= ?5 AND {_fits(of, status, unread, action)}{named} "
            # SQLite takes as many arguments as it finds question marks: so all ten are named, and the app's number is never 0.
            f"AND (?1 OR ?2 OR ?3 OR ?7 OR ?8 OR ?9 OR ?10) ORDER BY {order} LIMIT ?6)"
        )

    return (
        sql(own, "i", "feed_item i", "i.app = ?1 AND i.usr = ?2"),
        sql(own, "i", "feed_item i", f"i.app = ?1 AND i.usr = '' AND {MEANT} AND {UNTOUCHED}"),
        sql(
            theirs,
            "s",
            "feed_state s CROSS JOIN feed_item i ON i.id = s.item",
            f"s.app = ?1 AND s.usr = ?2 AND {MEANT}",
        ),
    )


def _fits(of: str, status: str | None, unread: bool | None, action: bool) -> str:
    """What an item must be, whose state is that of `i` or of `s`. A tombstone has neither read nor action to leave it out for."""
    alive = f"({of}.deleted = 0 AND i.expires_at > ?3)"
    parts = {None: f"({of}.deleted = 1 OR {alive})", "active": alive, "deleted": f"{of}.deleted = 1"}
    fits = [parts[status]]
    if unread is not None:
        fits.append(f"({of}.deleted = 1 OR {of}.read = {int(not unread)})")
    if action:
        fits.append(f"({of}.deleted = 1 OR {of}.action = ?7)")
    return " AND ".join(fits)


def find(db: Db, app: str, user: str, id: str, now: float, *, deleted: bool = False) -> FeedItem | None:
    """One item by its own id, also a tombstone; else an active one by its sender's, the latest. With `deleted` and where none is active,
    the user's latest tombstone of that sender's id."""
    number = db.app(app)
    ways = ("i.uuid = ?3", "i.external = ?3 AND i.deleted = 0", "i.external = ?3 AND i.deleted = 1")
    for wanted in ways if deleted else ways[:2]:
        rows = db.json(
            f"SELECT json_group_array(json(row)) FROM (SELECT json_array({COLUMNS}, i.topic) AS row, i.id FROM feed_item i "
            f"WHERE i.app = ?1 AND i.usr IN (?2, '') AND {wanted} AND (i.deleted = 1 OR i.expires_at > ?4) AND {UNTOUCHED} "
            f"UNION ALL SELECT json_array({_THEIRS}, i.topic), i.id FROM feed_item i CROSS JOIN feed_state s "
            f"ON s.item = i.id AND s.usr = ?2 WHERE i.app = ?1 AND i.usr = '' AND {wanted} AND i.expires_at > ?4 "
            "ORDER BY 2 DESC)",
            number,
            user,
            id,
            now,
        )
        member = topics(db, number, user) if any(row[-1] is not None for row in rows) else []
        for *row, topic in rows:
            if topic is None or topic in member:
                item = item_of(row)
                return None if item.deleted and item.id != id and not deleted else item
    return None


def pushes(db: Db, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
    """The notifications that pushed an item of the user's own."""
    item = find(db, app, user, id, now, deleted=True)
    if item is None or item.broadcast:
        return ()
    return tuple((db.value("SELECT pushes FROM feed_item WHERE id = ?", item.number) or "").split())


def touched(db: Db, after: int) -> Touched:
    """Whose feeds have changed after that number."""
    found = db.json(
        """
        SELECT json_object('head', f.seq, 'users', json((SELECT json_group_array(json_array(a.name, u.usr)) FROM (
          SELECT app, usr FROM feed_item INDEXED BY feed_item_seq WHERE seq > ?1 UNION SELECT app, usr FROM feed_state INDEXED BY feed_state_seq WHERE seq > ?1
          UNION SELECT app, usr FROM feed_look INDEXED BY feed_look_seq WHERE seq > ?1
        ) u CROSS JOIN app a ON a.id = u.app)),
        'erased', json((SELECT json_group_array(json_array(a.name, hex(e.digest))) FROM feed_erased e
          CROSS JOIN app a ON a.id = e.app WHERE e.seq > ?1))) FROM feed f
        """,
        after,
    )
    users = frozenset((app, user) for app, user in found["users"])
    return Touched(
        head=found["head"],
        users=users,
        erased=frozenset((app, bytes.fromhex(digest)) for app, digest in found["erased"]),
        shared=_shared(db, after) if any(not user for _, user in users) else (),
    )


def _shared(db: Db, after: int) -> tuple[tuple[str, str | None, FeedItem], ...] | None:
    rows = db.rows(
        f"a.name, i.topic, {COLUMNS}",
        "(SELECT * FROM feed_item INDEXED BY feed_item_seq WHERE seq > ? AND usr = '' ORDER BY seq LIMIT ?) i "
        "CROSS JOIN app a ON a.id = i.app",
        after,
        SHARED + 1,
    )
    if len(rows) > SHARED:
        return None
    found = [(app, topic, item_of(row)) for app, topic, *row in rows]
    return tuple(sorted(found, key=lambda each: each[2].seq))
