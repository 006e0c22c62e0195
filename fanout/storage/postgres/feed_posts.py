"""Posts into the feed, many at once: one read of what they replace, one write."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from fanout.core.feed import FeedPost, FeedWritten
from fanout.core.records import Submission
from fanout.storage.feed_items import item_of
from fanout.storage.feed_posts import NAMES, Held, Place, Posting, items_needed, numbers_needed, places_of
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.feed_items import COLUMNS

__all__ = ["Posts", "next_seq", "posted", "write_tombstones"]


class Posts:
    """The feed writes of one put: `plan` says what they come to, `write` stores them."""

    def __init__(self, db: Db, now: float) -> None:
        self._db = db
        self._now = now
        self._posting: Posting | None = None
        self.identity = 0

    async def same(self, subs: Sequence[Submission]) -> list[bool]:
        """In which of them nothing is new, as things stand: others may still write to the feed."""
        posts = [sub.feed for sub in subs if isinstance(sub.feed, FeedPost)]
        if all(post.external_id is None for post in posts):
            return [False] * len(subs)
        places = await self._places(subs, posts)
        posting = Posting(await self._held(posts, places), count(), self._now)
        return [not written.changed for written in posting.plan(subs, posts, places, 0, [()] * len(subs))]

    async def _places(self, subs: Sequence[Submission], posts: Sequence[FeedPost]) -> list[list[Place]]:
        return [
            places_of(await self._db.app(sub.app, create=True), sub, post)
            for sub, post in zip(subs, posts, strict=True)
        ]

    async def _held(self, posts: Sequence[FeedPost], places: Sequence[Sequence[Place]]) -> dict[Place, Held]:
        return await self._look(
            [place for each, post in zip(places, posts, strict=True) if post.external_id is not None for place in each]
        )

    async def plan(self, subs: Sequence[Submission], pushes: Sequence[Sequence[str]]) -> list[FeedWritten]:
        """What each comes to, in order. From here to the end of the transaction nobody else writes to the feed."""
        if not subs:
            return []
        posts = [sub.feed for sub in subs if isinstance(sub.feed, FeedPost)]
        places = await self._places(subs, posts)
        row = await self._db.row(_TAKE, sum(numbers_needed(posts)), items_needed(places))
        assert row is not None
        last, self.identity, numbers = row
        self._posting = Posting(await self._held(posts, places), numbers, self._now)
        return self._posting.plan(subs, posts, places, last, pushes)

    async def _look(self, places: Sequence[Place]) -> dict[Place, Held]:
        """The items that are active there, or else the latest that was deleted by its user."""
        if not places:
            return {}
        rows = await self._db.rows(_LOOK, list(range(len(places))), *zip(*places, strict=True))
        return {places[key]: (item_of(row), digest, pushes.split()) for key, digest, pushes, *row in rows}

    async def write(self) -> None:
        """Store it all."""
        if self._posting is None:
            return
        await self._db.many(_WRITE, self._posting.rows.values())
        if self._posting.cleared:
            await self._db.run("DELETE FROM feed_state WHERE item = ANY($1::bigint[])", self._posting.cleared)
            await self._db.run("DELETE FROM feed_seen WHERE item = ANY($1::bigint[])", self._posting.cleared)
        for statement in _MOVE:
            await self._db.many(statement, self._posting.moved)


_TAKE = """
WITH f AS (UPDATE feed SET seq = seq + $1 WHERE id = 1 RETURNING seq, identity)
SELECT seq, identity, ARRAY(SELECT nextval('feed_item_id_seq') FROM generate_series(1, $2::int)) FROM f
"""
_LOOK_AT = f"""
SELECT j.i, i.digest, coalesce(i.pushes, ''), {COLUMNS} FROM unnest($1::int[], $2::int[], $3::text[], $4::text[], $5::text[]) j (i, app, usr, topic, external)
CROSS JOIN LATERAL (
  SELECT * FROM feed_item WHERE app = j.app AND usr = j.usr AND external = j.external AND coalesce(topic, '') = j.topic AND {{}} OFFSET 0
) i
"""
_LOOK = (
    f"({_LOOK_AT.format('deleted::int = 1 AND digest IS NOT NULL')} ORDER BY i.id) UNION ALL "
    f"({_LOOK_AT.format('NOT deleted AND external IS NOT NULL')})"
)
"""Those that are active come last."""
_MOVED = "unnest($1::bigint[], $2::bigint[], $3::bigint[]) j (item, former, seq)"
_MOVE = (
    f"UPDATE feed_state s SET seq = j.seq FROM {_MOVED} WHERE s.item = ANY (ARRAY[j.item])",
    f"UPDATE feed_fallback f SET seq = j.seq FROM {_MOVED} WHERE f.item = ANY (ARRAY[j.item]) AND f.seq = j.former",
)
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
_COLUMNS = NAMES
_WRITE = (
    f"INSERT INTO feed_item ({', '.join(_COLUMNS)}) SELECT * FROM unnest("
    + ", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(_COLUMNS, 1))
    + ") ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[4:])
)


async def next_seq(db: Db, numbers: int = 1) -> int:
    """The last of so many new numbers of the sequence of changes. Until the transaction ends nobody else writes to the feed."""
    return int(await db.value("UPDATE feed SET seq = seq + $1 WHERE id = 1 RETURNING seq", numbers))


async def write_tombstones(db: Db, numbers: Sequence[int], first: int, now: float) -> None:
    """These items become tombstones, for everybody, under the numbers from `first` on."""
    await db.many(
        "UPDATE feed_item i SET deleted = true, content = '', digest = NULL, pushes = '', modified_at = $3, writer = 0, seq = j.seq "
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
