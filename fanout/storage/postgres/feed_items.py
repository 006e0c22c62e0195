"""Feed items read: pages, single items, and whose feeds have changed. Each is one statement, which sees one moment."""

from __future__ import annotations

from functools import lru_cache

import orjson

from fanout.core.feed import SHARED, FeedItem, FeedPage, FeedQuery, Touched, user_digest
from fanout.core.shard import shard_of
from fanout.storage.feed_items import item_of, page_of
from fanout.storage.postgres.db import Db

__all__ = ["COLUMNS", "DEVICES", "UNTOUCHED", "find", "identity", "page", "pushes", "touched"]

_SHARED = "i.uuid, i.id, i.external, i.grp, i.priority, i.created_at, i.expires_at, i.display_until, i.fallback_at, i.usr = ''"
_OWN = "i.seq, CASE WHEN i.deleted THEN '' ELSE i.content END, i.modified_at, i.read, i.action, i.deleted, i.writer"
_STATE = "s.seq, CASE WHEN s.deleted THEN '' ELSE i.content END, s.modified_at, s.read, s.action, s.deleted, s.writer"
COLUMNS = f"{_SHARED}, {_OWN}"
"""What `item_of` wants of an item `i` that no state of the user's hides."""
_THEIRS = f"{_SHARED}, {_STATE}"

UNTOUCHED = "NOT EXISTS (SELECT 1 FROM feed_state s WHERE s.item = i.id AND s.usr = $2)"
DEVICES = "endpoint e WHERE e.app = $1 AND e.usr = $2 AND e.usr <> '' AND e.shard = {} AND e.state IN ('active', 'gone', 'expired')"
"""Those of a user that put her into topics; the part that they stand in is to be filled in."""


async def identity(db: Db) -> int:
    """32 bits of this database."""
    return int(await db.value("SELECT identity FROM feed"))


async def page(db: Db, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
    """A page of the user's feed.

    An item of everybody that she has changed is read from her state of it only, so that each part follows an index in the order
    of `seq` and ends at the limit.
    """
    newest = query.newest_before is not None
    number = await db.app(app)
    rows = await db.rows(
        _page_sql(
            newest,
            query.status,
            query.unread,
            query.action is not None,
            query.group is not None,
            query.ids is not None,
            query.content,
        ),
        number,
        user,
        now,
        query.newest_before if newest else query.after,
        query.until,
        query.limit + 1,
        query.action,
        shard_of(user, b""),
        user_digest(user),
        query.group,
        None if query.ids is None else list(query.ids),
    )
    if not number and await db.app(app):
        # The app's first post was committed between the two statements: the head tells of it, and the rows do not.
        return await page(db, app, user, query, now)
    head, floor, topics = rows[0][:3]
    found = [tuple(row)[3:] for row in rows if row[3] is not None]
    return page_of(found, query, head, floor, sorted(topics))


@lru_cache
def _page_sql(
    newest: bool, status: str | None, unread: bool | None, action: bool, group: bool, ids: bool, content: bool
) -> str:
    """Her own items; those of everybody; and those of everybody that she has changed. Each statement has the same arguments: app, user,
    now, where to begin, the last number, limit, action, the part of her devices, her digest, group, ids."""
    named = " AND i.grp = $10" * group + " AND (i.uuid = ANY($11::text[]) OR i.external = ANY($11::text[]))" * ids
    own, theirs = [each if content else each.replace("i.content", "''") for each in (COLUMNS, _THEIRS)]
    meant = "(i.topic IS NULL OR i.topic = ANY(m.topics))"

    def sql(columns: str, of: str, tables: str, where: str) -> str:
        order = "i.id DESC" if newest else f"{of}.seq"
        begin = "i.id < $4" if newest else f"{of}.seq > $4"
        return (
            f"(SELECT {columns} FROM {tables} WHERE {where} AND {begin} AND {of}.seq <= least(f.seq, $5::bigint) "
            f"AND {_fits(of, status, unread, action)}{named} ORDER BY {order} LIMIT $6)"
        )

    parts = (
        sql(own, "i", "feed_item i", "i.app = $1 AND i.usr = $2"),
        sql(own, "i", "feed_item i", f"i.app = $1 AND i.usr = '' AND {meant} AND {UNTOUCHED}"),
        sql(theirs, "s", "feed_state s JOIN feed_item i ON i.id = s.item", f"s.app = $1 AND s.usr = $2 AND {meant}"),
    )
    return (
        "WITH f AS MATERIALIZED (SELECT seq, greatest(floor, coalesce((SELECT e.seq FROM feed_erased e "
        "WHERE e.app = $1 AND e.digest = $9), 0)) AS floor FROM feed), "
        f"m AS MATERIALIZED (SELECT ARRAY(SELECT DISTINCT unnest(e.tags) FROM {DEVICES.format('$8::smallint')}) AS topics) "
        f"SELECT f.seq, f.floor, m.topics, r.* FROM f CROSS JOIN m LEFT JOIN LATERAL ({' UNION ALL '.join(parts)}) r "
        "ON $7::text IS NULL OR $10::text IS NULL OR $11::text[] IS NULL OR true"
    )


def _fits(of: str, status: str | None, unread: bool | None, action: bool) -> str:
    """What an item must be, whose state is that of `i` or of `s`. A tombstone has neither read nor action to leave it out for."""
    alive = f"(NOT {of}.deleted AND i.expires_at > $3)"
    parts = {
        None: f"({of}.deleted OR i.expires_at > $3)",
        "active": alive,
        "deleted": f"({of}.deleted AND $3::float8 > 0)",
    }
    fits = [parts[status]]
    if unread is not None:
        fits.append(f"({of}.deleted OR {of}.read = {'false' if unread else 'true'})")
    if action:
        fits.append(f"({of}.deleted OR {of}.action = $7)")
    return " AND ".join(fits)


async def find(db: Db, app: str, user: str, id: str, now: float, *, deleted: bool = False) -> FeedItem | None:
    """One item by its own id, also a tombstone; else an active one by its sender's, the latest. With `deleted` and where none is active,
    the user's latest tombstone of that sender's id."""
    for sql in _FIND if deleted else _FIND[:2]:
        for row in await db.rows(sql, await db.app(app), user, id, now, shard_of(user, b"")):
            item = item_of(row)
            return None if item.deleted and item.id != id and not deleted else item
    return None


async def pushes(db: Db, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
    """The notifications that pushed an item of the user's own."""
    item = await find(db, app, user, id, now, deleted=True)
    if item is None or item.broadcast:
        return ()
    return tuple((await db.value("SELECT pushes FROM feed_item WHERE id = $1", item.number) or "").split())


def _find_sql(wanted: str) -> str:
    meant = f"(i.topic IS NULL OR EXISTS (SELECT 1 FROM {DEVICES.format('$5::smallint')} AND i.topic = ANY(e.tags)))"
    return (
        f"SELECT {COLUMNS} FROM feed_item i WHERE i.app = $1 AND i.usr IN ($2, '') AND {wanted} "
        f"AND (i.deleted OR i.expires_at > $4) AND {UNTOUCHED} AND {meant} "
        f"UNION ALL SELECT {_THEIRS} FROM feed_item i JOIN feed_state s ON s.item = i.id AND s.usr = $2 "
        f"WHERE i.app = $1 AND i.usr = '' AND {wanted} AND i.expires_at > $4 AND {meant} ORDER BY 2 DESC LIMIT 1"
    )


_FIND = (
    _find_sql("i.uuid = $3"),
    _find_sql("i.external = $3 AND NOT i.deleted"),
    _find_sql("i.external = $3 AND i.deleted"),
)

_TOUCHED = f"""
SELECT f.seq,
coalesce((SELECT json_agg(json_build_array(a.name, u.usr)) FROM (
  SELECT app, usr FROM feed_item WHERE seq > $1 UNION SELECT app, usr FROM feed_state WHERE seq > $1
  UNION SELECT app, usr FROM feed_look WHERE seq > $1
) u JOIN app a ON a.id = u.app), '[]'),
coalesce((SELECT json_agg(json_build_array(a.name, encode(e.digest, 'hex'))) FROM feed_erased e
  JOIN app a ON a.id = e.app WHERE e.seq > $1), '[]'),
coalesce((SELECT json_agg(json_build_array(a.name, i.topic, {COLUMNS}) ORDER BY i.seq) FROM (
  SELECT * FROM feed_item WHERE seq > $1 AND usr = '' ORDER BY seq LIMIT {SHARED + 1}
) i JOIN app a ON a.id = i.app), '[]')
FROM feed f
"""


async def touched(db: Db, after: int) -> Touched:
    """Whose feeds have changed after that number."""
    row = await db.row(_TOUCHED, after)
    assert row is not None
    head, users, erased, shared = row
    items = orjson.loads(shared)
    return Touched(
        head=head,
        users=frozenset((app, user) for app, user in orjson.loads(users)),
        erased=frozenset((app, bytes.fromhex(digest)) for app, digest in orjson.loads(erased)),
        shared=None if len(items) > SHARED else tuple((app, topic, item_of(rest)) for app, topic, *rest in items),
    )
