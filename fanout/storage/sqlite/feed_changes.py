"""Changes of feed items by their users."""

from __future__ import annotations

from fanout.core.feed import FeedChange, FeedWritten
from fanout.core.records import Submission
from fanout.storage.feed_changes import judge
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.feed_items import find

__all__ = ["decide", "write"]


def decide(db: Db, sub: Submission, change: FeedChange, now: float) -> tuple[FeedWritten, int]:
    """What a change would come to, without a number yet; and the endpoint of its writer, 0 for none."""
    (user,) = sub.target.names
    item = find(db, sub.app, user, change.item, now, deleted=change.delete)
    device: tuple[int, int] | None = (0, 0)
    if change.writer and item is not None:
        rows = db.rows(
            "id, endpoint",
            "subscription WHERE unsid = ? AND app = ? AND user = ?",
            change.writer,
            db.app(sub.app),
            user,
        )
        device = (rows[0][0], rows[0][1]) if rows else None
    return judge(change, item, device, now)


def write(db: Db, sub: Submission, written: FeedWritten) -> None:
    """Store what `decide` said, under the number that it has been given."""
    item = written.item
    assert item is not None
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
            item.seq,
        )
        return
    db.run(
        "UPDATE feed_item SET read = ?, action = ?, deleted = ?, modified_at = ?, writer = ?, seq = ?, "
        "content = iif(?3, '', content) WHERE id = ?",
        item.read,
        item.action,
        item.deleted,
        item.modified_at,
        item.writer,
        item.seq,
        item.number,
    )
