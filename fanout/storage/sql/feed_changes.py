"""Changes of feed items by their users."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.feed import FeedBulk, FeedChange, FeedItem
from fanout.core.records import Submission
from fanout.storage.feed_changes import Decided, judge, judge_all
from fanout.storage.feed_items import OWN, own_of
from fanout.storage.sql.db import Db, overwrite
from fanout.storage.sql.feed_items import find, page

__all__ = ["decide", "write"]


async def decide(db: Db, sub: Submission, change: FeedChange | FeedBulk, now: float) -> Decided:
    """The result of a change, without numbers yet; and the endpoint of its writer, 0 for none."""
    (user,) = sub.target.names
    device: tuple[int, int] | None = (0, 0)
    if change.writer:
        row = await db.row(
            "SELECT id, endpoint FROM subscription WHERE unsid = $1 AND app = $2 AND usr = $3",
            change.writer,
            await db.app(sub.app),
            user,
        )
        device = None if row is None else (row[0], row[1])
    if isinstance(change, FeedBulk):
        return judge_all(change, await page(db, sub.app, user, change.query, now), device, now)
    return judge(change, await find(db, sub.app, user, change.item, now, deleted=change.delete), device, now)


async def write(db: Db, sub: Submission, items: Sequence[FeedItem], *, forget: bool = False) -> None:
    """Store the items of `decide`, under the numbers that they were given; with `forget` no post can repeat them."""
    (user,) = sub.target.names
    await db.many(
        f"INSERT INTO feed_state ({', '.join(_ROW)}, app, usr) SELECT j.*, $8, $9 FROM {db.given(1, **_ROW)} "
        f"WHERE true ON CONFLICT (item, usr) {overwrite(*list(_ROW)[1:])}",
        map(_row, (item for item in items if item.broadcast)),
        await db.app(sub.app),
        user,
    )
    await db.many(
        "UPDATE feed_item AS i SET read = j.read, action = j.action, deleted = j.deleted, modified_at = j.modified_at, writer = j.writer, "
        f"seq = j.seq, content = CASE WHEN j.deleted THEN '' ELSE i.content END, digest = CASE WHEN $8 THEN NULL ELSE i.digest END "
        f"FROM {db.given(1, **_ROW)} WHERE {db.keyed('i.id', 'j.item')}",
        map(_row, (item for item in items if not item.broadcast)),
        forget,
    )


_ROW = {"item": "bigint", **OWN}


def _row(item: FeedItem) -> tuple[object, ...]:
    return (item.number, *own_of(item))
