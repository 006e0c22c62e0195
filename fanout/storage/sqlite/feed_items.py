"""Feed items read: pages, single items, and whose feeds have changed. One statement each, so that it is one moment's state."""

from __future__ import annotations

from typing import Any

from fanout.core.feed import FeedItem, FeedPage, FeedQuery, Touched, user_digest
from fanout.storage.sqlite.db import Db

__all__ = ["COLUMNS", "MEMBER", "find", "identity", "item_of", "page", "touched"]

_SHARED = "i.uuid, i.id, i.external, i.grp, i.priority, i.created_at, i.expires_at, i.display_until, i.fallback_at, i.user = ''"
_OWN = "i.seq, iif(i.deleted, '', i.content), i.modified_at, i.read, i.action, i.deleted, i.writer"
_STATE = "s.seq, iif(s.deleted, '', i.content), s.modified_at, s.read, s.action, s.deleted, s.writer"
COLUMNS = f"{_SHARED}, {_OWN}"
"""What `item_of` wants of an item `i` that no state of the user's hides."""

MEMBER = """
SELECT DISTINCT t.value FROM endpoint e CROSS JOIN json_each(e.tags) t
WHERE e.app = ?1 AND e.user = ?2 AND e.user <> '' AND e.state IN ('active', 'gone', 'expired')
"""
"""The topics of the user ?2 of the app ?1."""

_MEANT = f"(i.topic IS NULL OR i.topic IN ({MEMBER}))"


def item_of(row: list[Any]) -> FeedItem:
    """The item of a row of `COLUMNS`."""
    uuid, id, external, group, priority, created, expires, display, fallback, broadcast, *own = row
    seq, content, modified, read, action, deleted, writer = own
    return FeedItem(
        id=uuid,
        number=id,
        seq=seq,
        external_id=external,
        group=group,
        priority=priority,
        content=content.encode(),
        created_at=created,
        modified_at=modified,
        expires_at=expires,
        display_until=display,
        fallback_at=fallback,
        read=bool(read),
        action=action,
        deleted=bool(deleted),
        broadcast=bool(broadcast),
        writer=writer,
    )


def identity(db: Db) -> int:
    """32 bits of this database."""
    return int(db.value("SELECT identity FROM feed"))


def page(db: Db, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
    """A page of the user's feed.

    An item of everybody that she has changed is read from her state of it only, so that each branch follows an index in the order
    of `seq` and ends at the limit.
    """
    newest = query.newest_before is not None
    own, theirs = _fits(query, "i"), _fits(query, "s")
    # ?1 app, ?2 user, ?3 digest of the user, ?4 now, ?5 limit, ?6 after or before, ?7 action, ?8 until
    limit = f"ORDER BY {'i.id DESC' if newest else '11'} LIMIT ?5"
    place = "i.id < ?6 AND {0}.seq <= ?8" if newest else "{0}.seq > ?6 AND {0}.seq <= ?8"
    sql = f"""
    SELECT json_object(
      'head', f.seq,
      'floor', max(f.floor, coalesce((SELECT e.seq FROM feed_erased e WHERE e.app = ?1 AND e.digest = unhex(?3)), 0)),
      'topics', json((SELECT json_group_array(value) FROM ({MEMBER}))),
      'items', json((SELECT json_group_array(json(row)) FROM (
        SELECT json_array({", ".join(f"c{n}" for n in range(17))}) AS row FROM (
          SELECT * FROM (SELECT {_named(_SHARED, _OWN)} FROM feed_item i
            WHERE i.app = ?1 AND i.user = ?2 AND {place.format("i")} AND {own} {limit})
          UNION ALL
          SELECT * FROM (SELECT {_named(_SHARED, _OWN)} FROM feed_item i
            WHERE i.app = ?1 AND i.user = '' AND {place.format("i")} AND {own} AND {_MEANT}
            AND NOT EXISTS (SELECT 1 FROM feed_state s WHERE s.item = i.id AND s.user = ?2) {limit})
          UNION ALL
          SELECT * FROM (SELECT {_named(_SHARED, _STATE)} FROM feed_state s CROSS JOIN feed_item i ON i.id = s.item
            WHERE s.app = ?1 AND s.user = ?2 AND {place.format("s")} AND {theirs} AND {_MEANT} {limit})
        ) ORDER BY {"c1 DESC" if newest else "c10"} LIMIT ?5))),
      'unused', ?7 IS ?8)
    FROM feed f
    """
    found = db.json(
        sql,
        db.app(app),
        user,
        user_digest(user).hex(),
        now,
        query.limit + 1,
        query.newest_before if newest else query.after,
        query.action,
        query.until,
    )
    items = tuple(item_of(row) for row in found["items"][: query.limit])
    more = len(found["items"]) > query.limit
    return FeedPage(
        items=items,
        seq=items[-1].seq if more and not newest else min(found["head"], query.until),
        more=more,
        head=found["head"],
        floor=found["floor"],
        topics=tuple(sorted(found["topics"])),
    )


def _named(*columns: str) -> str:
    """The columns as c0, c1, …: those of a compound select go by the names of its first part."""
    depth, names, start = 0, [], 0
    text = ", ".join(columns) + ","
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            names.append(text[start:position].strip())
            start = position + 1
    return ", ".join(f"{name} AS c{number}" for number, name in enumerate(names))


def _fits(query: FeedQuery, of: str) -> str:
    """What an item must be, whose state is that of `i` or of `s`. A tombstone has neither read nor action to leave it out for."""
    alive = f"({of}.deleted = 0 AND i.expires_at > ?4)"
    parts = {None: f"({of}.deleted = 1 OR {alive})", "active": alive, "deleted": f"{of}.deleted = 1"}
    fits = [parts[query.status]]
    if query.unread is not None:
        fits.append(f"({of}.deleted = 1 OR {of}.read = {int(not query.unread)})")
    if query.action is not None:
        fits.append(f"({of}.deleted = 1 OR {of}.action = ?7)")
    return " AND ".join(fits)


def find(db: Db, app: str, user: str, id: str, now: float) -> FeedItem | None:
    """One item by its own id, also a tombstone; else an active one by its sender's, the latest."""
    number = db.app(app)
    for wanted in ("i.uuid = ?3", "i.external = ?3 AND i.deleted = 0"):
        rows = db.rows(
            ", ".join(f"c{n}" for n in range(17)),
            f"""(
              SELECT {_named(_SHARED, _OWN)} FROM feed_item i WHERE i.app = ?1 AND i.user IN (?2, '') AND {wanted} AND {_MEANT}
              AND (i.deleted = 1 OR i.expires_at > ?4)
              AND NOT EXISTS (SELECT 1 FROM feed_state s WHERE s.item = i.id AND s.user = ?2)
              UNION ALL
              SELECT {_named(_SHARED, _STATE)} FROM feed_item i CROSS JOIN feed_state s ON s.item = i.id AND s.user = ?2
              WHERE i.app = ?1 AND i.user = '' AND {wanted} AND {_MEANT} AND i.expires_at > ?4
              ORDER BY 2 DESC LIMIT 1
            )""",
            number,
            user,
            id,
            now,
        )
        if rows:
            item = item_of(rows[0])
            return None if item.deleted and item.id != id else item
    return None


def touched(db: Db, after: int) -> Touched:
    """Whose feeds have changed after that number."""
    found = db.json(
        """
        SELECT json_object('head', f.seq, 'users', json((SELECT json_group_array(json_array(a.name, u.user)) FROM (
          SELECT app, user FROM feed_item INDEXED BY feed_item_seq WHERE seq > ?1 UNION SELECT app, user FROM feed_state INDEXED BY feed_state_seq WHERE seq > ?1
        ) u CROSS JOIN app a ON a.id = u.app)),
        'erased', json((SELECT json_group_array(json_array(a.name, hex(e.digest))) FROM feed_erased e
          CROSS JOIN app a ON a.id = e.app WHERE e.seq > ?1))) FROM feed f
        """,
        after,
    )
    return Touched(
        head=found["head"],
        users=frozenset((app, user) for app, user in found["users"]),
        erased=frozenset((app, bytes.fromhex(digest)) for app, digest in found["erased"]),
    )
