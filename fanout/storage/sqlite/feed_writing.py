"""Feed writes inside a put: what is posted or changed, and what its pushes are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.core.feed import FeedChange, FeedItem, FeedPost, FeedWritten, change_item
from fanout.core.records import Submission
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.feed_items import COLUMNS, find, item_of

__all__ = ["bury", "decide", "next_seq", "post", "posted", "write"]


def next_seq(db: Db, numbers: int = 1) -> int:
    """The last of so many new numbers of the sequence of changes."""
    return int(db.value("UPDATE feed SET seq = seq + ? RETURNING seq", numbers))


# -- changes


def decide(db: Db, sub: Submission, change: FeedChange, now: float) -> tuple[FeedWritten, FeedItem | None, int]:
    """What a change would come to, without a number yet; the item as it is; and the endpoint of its writer (0 for none)."""
    (user,) = sub.target.names
    item = find(db, sub.app, user, change.item, now)
    if item is None or (item.deleted and not change.delete):
        return FeedWritten(problem="missing"), None, 0
    writer, endpoint = 0, 0
    if change.writer:
        rows = db.rows(
            "id, endpoint",
            "subscription WHERE unsid = ? AND app = ? AND user = ?",
            change.writer,
            db.app(sub.app),
            user,
        )
        if not rows:
            return FeedWritten(problem="device"), None, 0
        writer, endpoint = rows[0]
    if change.if_match is not None and change.if_match != item.seq:
        return FeedWritten(item=item, id=item.id, seq=item.seq, problem="stale"), None, 0
    after = item if item.deleted else change_item(item, change, seq=0, now=now, writer=writer)
    if after is item:
        return FeedWritten(item=item, id=item.id, seq=item.seq, changed=False), None, 0
    return FeedWritten(item=after, id=item.id), item, endpoint


def write(db: Db, sub: Submission, written: FeedWritten) -> FeedWritten:
    """Store what `decide` said, under a new number."""
    assert written.item is not None
    seq = next_seq(db)
    item = replace(written.item, seq=seq)
    (user,) = sub.target.names
    if item.broadcast:
        db.run(
            "INSERT OR REPLACE INTO feed_state (item, app, user, read, action, deleted, modified_at, writer, seq) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            item.number,
            db.app(sub.app),
            user,
            item.read,
            item.action,
            item.deleted,
            item.modified_at,
            item.writer,
            seq,
        )
    else:
        db.run(
            "UPDATE feed_item SET read = ?, action = ?, deleted = ?, modified_at = ?, writer = ?, seq = ?, "
            "content = iif(?3, '', content) WHERE id = ?",
            item.read,
            item.action,
            item.deleted,
            item.modified_at,
            item.writer,
            seq,
            item.number,
        )
    return replace(written, item=item, seq=seq)


# -- posts


def post(db: Db, sub: Submission, what: FeedPost, now: float) -> FeedWritten:
    """Enter an item for the target; of many users, one each. The item's id is the notification's, or the replaced item's."""
    app = db.app(sub.app, create=True)
    target = sub.target
    users = list(target.names) if target.kind in ("user", "users") else [""]
    topic = target.names[0] if target.kind == "topic" else None
    many = target.kind == "users"
    seq = next_seq(db, 1 if what.external_id is None else 2)
    known = None if what.external_id is None else _known(db, app, users, topic, what.external_id, many, seq - 1, now)
    values = (
        what.external_id,
        what.group,
        what.priority,
        what.content.decode(),
        what.expires_at,
        what.display_until,
        what.fallback_at,
        seq,
    )
    if known is not None:
        db.run(
            "UPDATE feed_item SET external = ?, grp = ?, priority = ?, content = ?, expires_at = ?, display_until = ?, "
            "fallback_at = ?, seq = ?, modified_at = ?, read = 0, action = 'none', writer = 0 WHERE id = ?",
            *values,
            now,
            known.number,
        )
        db.run("DELETE FROM feed_state WHERE item = ?", known.number)
        db.run("DELETE FROM feed_seen WHERE item = ?", known.number)
    else:
        db.run(
            "INSERT INTO feed_item (external, grp, priority, content, expires_at, display_until, fallback_at, seq, app, user, topic, "
            "uuid, created_at, read, action, deleted, writer) "
            "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, value, ?11, ?12, ?13, 0, 'none', 0, 0 FROM json_each(?10)",
            *values,
            app,
            dumps(users),
            topic,
            sub.id,
            now,
        )
    item = FeedItem(
        id=sub.id if known is None else known.id,
        number=db.connection.last_insert_rowid() if known is None else known.number,
        seq=seq,
        external_id=what.external_id,
        group=what.group,
        priority=what.priority,
        content=what.content,
        created_at=now if known is None else known.created_at,
        modified_at=None if known is None else now,
        expires_at=what.expires_at,
        display_until=what.display_until,
        fallback_at=what.fallback_at,
        broadcast=users == [""],
    )
    return FeedWritten(item=None if many else item, id=item.id, seq=seq, replaced=known is not None)


def _known(
    db: Db, app: int, users: list[str], topic: str | None, external: str, many: bool, grave: int, now: float
) -> FeedItem | None:
    """The item that is to be replaced. One that has expired, or that is one of many users', becomes a tombstone of number `grave`."""
    rows = db.rows(
        COLUMNS,
        "json_each(?) j CROSS JOIN feed_item i ON i.app = ? AND i.user = j.value AND i.external = ? "
        "AND coalesce(i.topic, '') = ? AND i.deleted = 0",
        dumps(users),
        app,
        external,
        topic or "",
    )
    found = [item_of(row) for row in rows]
    if found and not many and found[0].expires_at > now:
        return found[0]
    bury(db, [item.number for item in found], grave, now)
    return None


def bury(db: Db, numbers: Sequence[int], seq: int, now: float) -> None:
    """These items become tombstones under one number, for everybody."""
    if numbers:
        chosen = dumps(list(numbers))
        db.run(
            "UPDATE feed_item SET deleted = 1, content = '', modified_at = ?, writer = 0, seq = ? "
            "WHERE id IN (SELECT value FROM json_each(?))",
            now,
            seq,
            chosen,
        )
        db.run("DELETE FROM feed_state WHERE item IN (SELECT value FROM json_each(?))", chosen)


def posted(db: Db, sub: Submission, id: str) -> FeedWritten:
    """What the feed write of an earlier submission of that id came to, as things stand now: for a replay."""
    assert isinstance(sub.feed, FeedPost)
    users = sub.target.names if sub.target.kind in ("user", "users") else ("",)
    external = sub.feed.external_id
    rows = db.rows(
        COLUMNS,
        "(SELECT * FROM feed_item WHERE app = ?1 AND user = ?2 AND (uuid = ?3 OR (external = ?4 AND deleted = 0)) "
        "ORDER BY uuid = ?3 DESC, id DESC LIMIT 1) i",
        db.app(sub.app),
        users[0],
        id,
        external,
    )
    item = item_of(rows[0]) if rows else None
    return FeedWritten(
        item=None if sub.target.kind == "users" else item,
        id=item.id if item else id,
        seq=item.seq if item else 0,
        changed=False,
    )
