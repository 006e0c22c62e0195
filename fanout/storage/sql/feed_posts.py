"""Posts into the feed, many at once: one read of the items that they replace, one write."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from fanout.core.feed import FeedPost, FeedWritten
from fanout.core.records import Submission
from fanout.storage.feed_items import item_of
from fanout.storage.feed_posts import CHANGING, POSTED, Held, Place, Posting, numbers_needed, places_of
from fanout.storage.sql.db import Db, Rows, made_once, overwrite
from fanout.storage.sql.feed_items import COLUMNS

__all__ = ["Posts", "next_seq", "posted", "write_tombstones"]


class Posts:
    """The feed writes of one put: `plan` works out their results, `write` stores them."""

    def __init__(self, db: Db, now: float) -> None:
        self._db = db
        self._now = now
        self._posting: Posting | None = None
        self._numbers = 0
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
        """The result of each, in order. From here to the end of the transaction no other transaction writes to the
        feed."""
        if not subs:
            return []
        posts = [sub.feed for sub in subs if isinstance(sub.feed, FeedPost)]
        places = await self._places(subs, posts)
        self._numbers = sum(numbers_needed(posts))
        last, self.identity, numbers = await self._db.feed_numbers(self._numbers, sum(map(len, places)))
        self._posting = Posting(await self._held(posts, places), numbers, self._now)
        return self._posting.plan(subs, posts, places, last, pushes)

    async def _look(self, places: Sequence[Place]) -> dict[Place, Held]:
        """The items that are active there, or else the latest that was deleted by its user."""
        if not places:
            return {}
        rows = await self._db.rows(_at(self._db), Rows([(i, *place) for i, place in enumerate(places)], 5))
        found = [(key, (item_of(row), digest, pushes.split())) for key, digest, pushes, *row in rows]
        found.sort(key=lambda each: (not each[1][0].deleted, each[1][0].number))
        return {places[key]: stored for key, stored in found}

    async def give_back(self) -> None:
        """Nothing is written after all."""
        if self._numbers:
            await self._db.run("UPDATE feed SET seq = seq - $1 WHERE id = 1", self._numbers)

    async def write(self) -> None:
        """Store it all."""
        if self._posting is None:
            return
        db = self._db
        await db.many(_write(db), self._posting.rows.values())
        if self._posting.cleared:
            await db.run(f"DELETE FROM feed_state WHERE item {db.among(1, 'bigint')}", self._posting.cleared)
            await db.run(f"DELETE FROM feed_seen WHERE item {db.among(1, 'bigint')}", self._posting.cleared)
        if not self._posting.moved:
            return
        await db.many(
            f"UPDATE feed_state AS s SET seq = j.seq FROM {db.given(1, **_MOVED)} WHERE {db.keyed('s.item', 'j.item')}",
            self._posting.moved,
        )
        await db.many(
            f"UPDATE feed_fallback AS f SET seq = j.seq FROM {db.given(1, **_MOVED)} "
            f"WHERE {db.keyed('f.item', 'j.item')} AND f.seq = j.former",
            self._posting.moved,
        )


@made_once
def _at(db: Db) -> str:
    """Active items, and items that their user deleted. A tombstone is found by an index of its own, and no other row
    is."""
    keys = {"i": "int", "app": "int", "usr": "text", "subject": "text", "external": "text"}

    def where(which: str) -> str:
        also = f"coalesce(i.topic, '') = j.subject AND {which}"
        return (
            f"SELECT j.i, i.digest, coalesce(i.pushes, ''), {COLUMNS} "
            f"FROM {db.joined(1, 'feed_item i', 'app, usr, external', also, **keys)}"
        )

    graves = where("CAST(i.deleted AS int) = 1 AND i.digest IS NOT NULL")
    return f"{graves} UNION ALL {where('NOT i.deleted AND i.external IS NOT NULL')}"


_MOVED = {"item": "bigint", "former": "bigint", "seq": "bigint"}


@made_once
def _write(db: Db) -> str:
    names = ", ".join(POSTED)
    return (
        f"INSERT INTO feed_item ({names}) SELECT {names} FROM {db.given(1, **POSTED)} "
        f"WHERE true ON CONFLICT (id) {overwrite(*CHANGING)}"
    )


async def next_seq(db: Db, numbers: int = 1) -> int:
    """The last of so many new numbers of the sequence of changes. Until the transaction ends no other one writes to the
    feed."""
    return int(await db.value("UPDATE feed SET seq = seq + $1 WHERE id = 1 RETURNING seq", numbers))


async def write_tombstones(db: Db, numbers: Sequence[int], first: int, now: float) -> None:
    """These items become tombstones, for all users, under the numbers from `first` on."""
    await db.many(
        "UPDATE feed_item AS i SET deleted = true, content = '', digest = NULL, pushes = '', modified_at = $3, writer = 0, seq = j.seq "
        f"FROM {db.given(1, id='bigint', seq='bigint')} WHERE {db.keyed('i.id', 'j.id')}",
        [(number, seq) for seq, number in enumerate(numbers, first)],
        now,
    )
    await db.run(f"DELETE FROM feed_state WHERE item {db.among(1, 'bigint')}", list(numbers))


async def posted(db: Db, sub: Submission, id: str) -> FeedWritten:
    """The result of the feed write of an earlier submission of that id, as things stand now: for a replay."""
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
