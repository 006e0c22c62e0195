"""Changes of feed items by their users."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.feed import FeedBulk, FeedChange, FeedItem
from fanout.core.records import Submission
from fanout.storage.feed_changes import Decided, judge, judge_all
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.feed_items import find, page

__all__ = ["decide", "write"]


def decide(db: Db, sub: Submission, change: FeedChange | FeedBulk, now: float) -> Decided:
    """What a change would come to, without numbers yet; and the endpoint of its writer, 0 for none."""
    (user,) = sub.target.names
    device: tuple[int, int] | None = (0, 0)
    if change.writer:
        rows = db.rows(
            "id, endpoint",
            "subscription WHERE unsid = ? AND app = ? AND usr = ?",
            change.writer,
            db.app(sub.app),
            user,
        )
        device = (rows[0][0], rows[0][1]) if rows else None
    if isinstance(change, FeedBulk):
        return judge_all(change, page(db, sub.app, user, change.query, now), device, now)
    return judge(change, find(db, sub.app, user, change.item, now, deleted=change.delete), device, now)


def write(db: Db, sub: Submission, items: Sequence[FeedItem], *, forget: bool = False) -> None:
    """Store what `decide` said, under the numbers that it has been given; with `forget` no post can repeat them."""
    (user,) = sub.target.names
    db.many(
        "INSERT OR REPLACE INTO feed_state (item, read, action, deleted, modified_at, writer, seq, app, usr) "
        "SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, ?2, ?3 FROM jsonb_each(?1)",
        map(_row, (item for item in items if item.broadcast)),
        db.app(sub.app),
        user,
    )
    db.many(
        "UPDATE feed_item SET read = j.value->>1, action = j.value->>2, deleted = j.value->>3, modified_at = j.value->>4, "
        "writer = j.value->>5, seq = j.value->>6, content = iif(j.value->>3, '', content), "
        "digest = iif(?2, NULL, digest) FROM jsonb_each(?1) j WHERE feed_item.id = j.value->>0",
        map(_row, (item for item in items if not item.broadcast)),
        forget,
    )


def _row(item: FeedItem) -> tuple[object, ...]:
    return (item.number, item.read, item.action, item.deleted, item.modified_at, item.writer, item.seq)
