"""Posts into the feed, many at once: one read of what they replace, one write."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.feed import FeedItem, FeedPost, FeedWritten
from fanout.core.records import Submission
from fanout.storage.feed_items import item_of
from fanout.storage.feed_posts import NAMES, Place, Posting, items_needed, numbers_needed, places_of
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.feed_items import COLUMNS

__all__ = ["Posts", "bury", "next_seq", "posted"]


class Posts:
    """The feed writes of one put: `plan` says what they come to, `write` stores them."""

    def __init__(self, db: Db, now: float) -> None:
        self._db = db
        self._now = now
        self._posting: Posting | None = None
        self.identity = 0

    async def plan(self, subs: Sequence[Submission]) -> list[FeedWritten]:
        """What each comes to, in order. From here to the end of the transaction nobody else writes to the feed."""
        if not subs:
            return []
        posts = [sub.feed for sub in subs if isinstance(sub.feed, FeedPost)]
        places = [
            places_of(await self._db.app(sub.app, create=True), sub, post)
            for sub, post in zip(subs, posts, strict=True)
        ]
        row = await self._db.row(_TAKE, sum(numbers_needed(posts)), items_needed(places))
        assert row is not None
        last, self.identity, numbers = row
        active = await self._look(
            [place for each, post in zip(places, posts, strict=True) if post.external_id is not None for place in each]
        )
        self._posting = Posting(active, numbers, self._now)
        return self._posting.plan(subs, posts, places, last)

    async def _look(self, places: Sequence[Place]) -> dict[Place, FeedItem]:
        """The items that are active there."""
        if not places:
            return {}
        rows = await self._db.rows(_LOOK, list(range(len(places))), *zip(*places, strict=True))
        return {places[key]: item_of(row) for key, *row in rows}

    async def write(self) -> None:
        """Store it all."""
        if self._posting is None:
            return
        await self._db.many(_WRITE, self._posting.rows.values())
        if self._posting.cleared:
            await self._db.run("DELETE FROM feed_state WHERE item = ANY($1::bigint[])", self._posting.cleared)
            await self._db.run("DELETE FROM feed_seen WHERE item = ANY($1::bigint[])", self._posting.cleared)


_TAKE = """
WITH f AS (UPDATE feed SET seq = seq + $1 WHERE id = 1 RETURNING seq, identity)
SELECT seq, identity, ARRAY(SELECT nextval('feed_item_id_seq') FROM generate_series(1, $2::int)) FROM f
"""
_LOOK = f"""
SELECT j.i, {COLUMNS} FROM unnest($1::int[], $2::int[], $3::text[], $4::text[], $5::text[]) j (i, app, usr, topic, external)
CROSS JOIN LATERAL (
  SELECT * FROM feed_item WHERE app = j.app AND usr = j.usr AND external = j.external AND coalesce(topic, '') = j.topic AND NOT deleted
  AND external IS NOT NULL OFFSET 0
) i
"""
_TYPES = {
    "id": "bigint",
    "app": "int",
    "created_at": "float8",
    "modified_at": "float8",
    "expires_at": "float8",
    "display_until": "float8",
    "fallback_at": "float8",
    "read": "boolean",
    "deleted": "boolean",
    "writer": "bigint",
    "seq": "bigint",
}
_COLUMNS = ["usr" if name == "user" else name for name in NAMES]
_WRITE = (
    f"INSERT INTO feed_item ({', '.join(_COLUMNS)}) SELECT * FROM unnest("
    + ", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(_COLUMNS, 1))
    + ") ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[4:])
)


async def next_seq(db: Db, numbers: int = 1) -> int:
    """The last of so many new numbers of the sequence of changes. Until the transaction ends nobody else writes to the feed."""
    return int(await db.value("UPDATE feed SET seq = seq + $1 WHERE id = 1 RETURNING seq", numbers))


async def bury(db: Db, numbers: Sequence[int], first: int, now: float) -> None:
    """These items become tombstones, for everybody, under the numbers from `first` on."""
    await db.many(
        "UPDATE feed_item i SET deleted = true, content = '', modified_at = $3, writer = 0, seq = j.seq "
        "FROM unnest($1::bigint[], $2::bigint[]) j (id, seq) WHERE i.id = ANY (ARRAY[j.id])",
        [(number, seq) for seq, number in enumerate(numbers, first)],
        now,
    )
    await db.run("DELETE FROM feed_state WHERE item = ANY($1::bigint[])", list(numbers))


async def posted(db: Db, sub: Submission, id: str) -> FeedWritten:
    """What the feed write of an earlier submission of that id came to, as things stand now: for a replay."""
    assert isinstance(sub.feed, FeedPost)
    user = sub.target.names[0] if sub.target.kind in ("user", "users") else ""
    row = await db.row(
        f"SELECT {COLUMNS} FROM (SELECT * FROM feed_item WHERE app = $1 AND usr = $2 AND (uuid = $3 OR (external = $4 AND NOT deleted)) "
        "ORDER BY uuid = $3 DESC, id DESC LIMIT 1) i",
        await db.app(sub.app),
        user,
        id,
        sub.feed.external_id,
    )
    item = item_of(row) if row is not None else None
    return FeedWritten(
        item=None if sub.target.kind == "users" else item,
        id=item.id if item else id,
        seq=item.seq if item else 0,
        changed=False,
    )
