"""Feed items read: pages, single items, and whose feeds have changed. Each is one statement, which sees one moment."""

from __future__ import annotations

import orjson

from fanout.core.feed import SHARED, FeedItem, FeedPage, FeedQuery, Touched, user_digest
from fanout.core.shard import shard_of
from fanout.storage.feed_items import COMMON, OWN, item_of, page_of
from fanout.storage.sql.db import Db, made_once

__all__ = ["COLUMNS", "UNTOUCHED", "find", "identity", "meant", "page", "pushes", "topics", "touched"]


def _columns(own: str) -> str:
    content = f"CASE WHEN {own}.deleted THEN '' ELSE i.content END"
    return ", ".join([*(f"i.{name}" for name in COMMON), "i.usr = ''", content, *(f"{own}.{name}" for name in OWN)])


COLUMNS = _columns("i")
"""The columns that `item_of` wants of an item `i` that no state of the user's hides."""
_THEIRS = _columns("s")

UNTOUCHED = "NOT EXISTS (SELECT 1 FROM feed_state s WHERE s.item = i.id AND s.usr = $2)"


async def identity(db: Db) -> int:
    """32 bits of this database."""
    return int(await db.value("SELECT identity FROM feed"))


def _devices(db: Db, part: str) -> str:
    """Those of the app `$1` and user `$2`; they stand in the part of the directory that `part` gives."""
    return f"e.app = $1 AND e.usr = $2 AND e.usr <> ''{db.part('e', part)} AND e.state IN ('active', 'gone', 'expired')"


def topics(db: Db, part: str) -> str:
    """A list of the topics that the devices are in: the only row and column, which `meant` reads from `m`."""
    member = db.listed("t.value", f"endpoint e {db.each('e.tags', 't')} WHERE {_devices(db, part)}")
    return f"SELECT {member} AS topics"


def meant(db: Db) -> str:
    """The condition that a broadcast item `i` is for the user too."""
    return f"(i.topic IS NULL OR i.topic {db.one_of('SELECT topics FROM m', 'text')})"


async def page(db: Db, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
    """A page of the user's feed.

    A broadcast item that she has changed is read from her state of it only. So each part follows an index in the order
    of `seq` and ends at the limit.
    """
    newest = query.newest_before is not None
    number = await db.app(app)
    ids = None if query.ids is None else list(query.ids)
    narrow = (query.action, query.group, ids)
    action, group, some = (value is not None for value in narrow)
    rows = await db.rows(
        _page(db, newest, query.status, query.unread, action, group, some, query.content),
        number,
        user,
        now,
        query.newest_before if newest else query.after,
        query.until,
        query.limit + 1,
        shard_of(user, b"\0"),
        user_digest(user),
        *(value for value in narrow if value is not None),
    )
    if not number and await db.app(app):
        # The app's first post was committed between the two statements: the head tells of it, and the rows do not.
        return await page(db, app, user, query, now)
    head, floor, erased, member = rows[0][:4]
    found = [tuple(row)[4:] for row in rows if row[4] is not None]
    return page_of(found, query, head, max(floor, erased), sorted(db.list_of(member)))


@made_once
def _page(
    db: Db, newest: bool, status: str | None, unread: bool | None, action: bool, group: bool, ids: bool, content: bool
) -> str:
    """Her own items; broadcast items; and broadcast items that she has changed. The arguments: app, user, now, where to
    begin, the last number, limit, the part of her devices, her digest; and action, group, ids, where the query has
    them."""
    own, theirs = [each if content else each.replace("i.content", "''") for each in (COLUMNS, _THEIRS)]
    named = f" AND i.grp = ${9 + action}" * group
    if ids:
        among = db.among(9 + action + group, "text")
        named += f" AND (i.uuid {among} OR i.external {among})"

    def part(columns: str, of: str, tables: str, where: str) -> str:
        order = "i.id DESC" if newest else f"{of}.seq"
        begin = "i.id < $4" if newest else f"{of}.seq > $4"
        return (
            f"SELECT * FROM (SELECT {columns} FROM {tables} WHERE {where} AND {begin} AND {of}.seq <= $5 "
            f"AND {of}.seq <= (SELECT seq FROM f) AND {_fits(of, status, unread, action)}{named} ORDER BY {order} LIMIT $6) p"
        )

    parts = (
        part(own, "i", "feed_item i", "i.app = $1 AND i.usr = $2"),
        part(own, "i", "feed_item i", f"i.app = $1 AND i.usr = '' AND {meant(db)} AND {UNTOUCHED}"),
        part(
            theirs, "s", "feed_state s JOIN feed_item i ON i.id = s.item", f"s.app = $1 AND s.usr = $2 AND {meant(db)}"
        ),
    )
    return (
        "WITH f AS MATERIALIZED (SELECT seq, floor, coalesce((SELECT e.seq FROM feed_erased e "
        "WHERE e.app = $1 AND e.digest = $8), 0) AS erased FROM feed), "
        f"m AS MATERIALIZED ({topics(db, '$7')}) "
        f"SELECT f.seq, f.floor, f.erased, (SELECT topics FROM m), r.* FROM f LEFT JOIN ({' UNION ALL '.join(parts)}) r ON true"
    )


def _fits(of: str, status: str | None, unread: bool | None, action: bool) -> str:
    """The condition for an item whose state is that of `i` or of `s`. A tombstone has neither read nor action to leave
    it out for."""
    parts = {
        None: f"({of}.deleted OR i.expires_at > $3)",
        "active": f"(NOT {of}.deleted AND i.expires_at > $3)",
        "deleted": f"({of}.deleted AND CAST($3 AS float8) IS NOT NULL)",
    }
    fits = [parts[status]]
    if unread is not None:
        fits.append(f"({of}.deleted OR {'NOT ' * unread}{of}.read)")
    if action:
        fits.append(f"({of}.deleted OR {of}.action = $9)")
    return " AND ".join(fits)


async def find(db: Db, app: str, user: str, id: str, now: float, *, deleted: bool = False) -> FeedItem | None:
    """One item by its own id, also a tombstone; else an active one by its sender's, the latest. With `deleted` and
    where none is active, the user's latest tombstone of that sender's id."""
    for wanted in _WAYS if deleted else _WAYS[:2]:
        row = await db.row(_find(db, wanted), await db.app(app), user, id, now, shard_of(user, b"\0"))
        if row is not None:
            item = item_of(row)
            return None if item.deleted and item.id != id and not deleted else item
    return None


_WAYS = ("i.uuid = $3", "i.external = $3 AND NOT i.deleted", "i.external = $3 AND i.deleted")


@made_once
def _find(db: Db, wanted: str) -> str:
    theirs = f"SELECT 1 FROM endpoint e WHERE {_devices(db, '$5')} AND i.topic {db.one_of('e.tags', 'text')}"
    meant = f"(i.topic IS NULL OR EXISTS ({theirs}))"
    return (
        f"SELECT {COLUMNS} FROM feed_item i WHERE i.app = $1 AND i.usr IN ($2, '') AND {wanted} "
        f"AND (i.deleted OR i.expires_at > $4) AND {UNTOUCHED} AND {meant} "
        f"UNION ALL SELECT {_THEIRS} FROM feed_item i JOIN feed_state s ON s.item = i.id AND s.usr = $2 "
        f"WHERE i.app = $1 AND i.usr = '' AND {wanted} AND i.expires_at > $4 AND {meant} ORDER BY 2 DESC LIMIT 1"
    )


async def pushes(db: Db, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
    """The notifications that pushed an item of the user's own."""
    item = await find(db, app, user, id, now, deleted=True)
    if item is None or item.broadcast:
        return ()
    return tuple((await db.value("SELECT pushes FROM feed_item WHERE id = $1", item.number) or "").split())


@made_once
def _touched(db: Db) -> str:
    # Not by UNION, which is made in the order of users, and so from the indexes that begin with them.
    users = (
        "(SELECT DISTINCT app, usr FROM (SELECT app, usr FROM feed_item WHERE seq > $1 UNION ALL "
        "SELECT app, usr FROM feed_state WHERE seq > $1 UNION ALL SELECT app, usr FROM feed_look WHERE seq > $1) c) u"
    )
    shared = f"(SELECT * FROM feed_item WHERE seq > $1 AND usr = '' ORDER BY seq LIMIT {SHARED + 1}) i"
    found = (
        db.lists("a.name, u.usr", f"{users} JOIN app a ON a.id = u.app"),
        db.lists(f"a.name, {db.hexadecimal('e.digest')}", "feed_erased e JOIN app a ON a.id = e.app WHERE e.seq > $1"),
        db.lists(f"a.name, i.topic, {COLUMNS}", f"{shared} JOIN app a ON a.id = i.app"),
    )
    return f"SELECT f.seq, {', '.join(found)} FROM feed f"


async def touched(db: Db, after: int) -> Touched:
    """The users whose feeds have changed after that number."""
    head, *found = await db.row(_touched(db), after)
    users, erased, shared = map(orjson.loads, found)
    items = sorted(((app, topic, item_of(rest)) for app, topic, *rest in shared), key=lambda each: each[2].seq)
    return Touched(
        head=head,
        users=frozenset((app, user) for app, user in users),
        erased=frozenset((app, bytes.fromhex(digest)) for app, digest in erased),
        shared=None if len(items) > SHARED else tuple(items),
    )
