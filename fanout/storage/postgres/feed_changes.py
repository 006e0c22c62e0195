"""Changes of feed items by their users."""

from __future__ import annotations

from fanout.core.feed import FeedChange, FeedWritten
from fanout.core.records import Submission
from fanout.storage.feed_changes import judge
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.feed_items import find

__all__ = ["decide", "write"]


async def decide(db: Db, sub: Submission, change: FeedChange, now: float) -> tuple[FeedWritten, int]:
    """What a change would come to, without a number yet; and the endpoint of its writer, 0 for none."""
    (user,) = sub.target.names
    item = await find(db, sub.app, user, change.item, now, deleted=change.delete)
    device: tuple[int, int] | None = (0, 0)
    if change.writer and item is not None:
        row = await db.row(
            "SELECT id, endpoint FROM subscription WHERE unsid = $1 AND app = $2 AND usr = $3",
            change.writer,
            await db.app(sub.app),
            user,
        )
        device = None if row is None else (row[0], row[1])
    return judge(change, item, device, now)


async def write(db: Db, sub: Submission, written: FeedWritten) -> None:
    """Store what `decide` said, under the number that it has been given."""
    item = written.item
    assert item is not None
    state = (item.read, item.action, item.deleted, item.modified_at, item.writer, item.seq, item.number)
    if item.broadcast:
        (user,) = sub.target.names
        await db.run(
            "INSERT INTO feed_state (read, action, deleted, modified_at, writer, seq, item, app, usr) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (item, usr) DO UPDATE SET read = excluded.read, "
            "action = excluded.action, deleted = excluded.deleted, modified_at = excluded.modified_at, writer = excluded.writer, "
            "seq = excluded.seq",
            *state,
            await db.app(sub.app),
            user,
        )
    else:
        await db.run(
            "UPDATE feed_item SET read = $1, action = $2, deleted = $3, modified_at = $4, writer = $5, seq = $6, "
            "content = CASE WHEN $3 THEN '' ELSE content END WHERE id = $7",
            *state,
        )
