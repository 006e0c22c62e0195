"""Posts into the feed, many at once: one read of what they replace, one write."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from fanout.core.feed import FeedPost, FeedWritten
from fanout.core.records import Submission
from fanout.storage.feed_items import item_of
from fanout.storage.feed_posts import NAMES, Held, Place, Posting, items_needed, numbers_needed, places_of
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.feed_items import COLUMNS

__all__ = ["Posts", "next_seq", "posted", "write_tombstones"]


class Posts:
    """The feed writes of one put: `plan` says what they come to, `write` stores them."""

    def __init__(self, db: Db, now: float) -> None:
        self._db = db
        self._now = now
        self._posting: Posting | None = None
        self._numbers = 0
        self.identity = 0

    def plan(self, subs: Sequence[Submission], pushes: Sequence[Sequence[str]]) -> list[FeedWritten]:
        """What each comes to, in order. `pushes` are the notifications of each."""
        if not subs:
            return []
        posts = [sub.feed for sub in subs if isinstance(sub.feed, FeedPost)]
        self._numbers = sum(numbers_needed(posts))
        last, self.identity = self._db.json(
            "UPDATE feed SET seq = seq + ? RETURNING json_array(seq, identity)", self._numbers
        )
        first = self._db.next_id("feed_item")
        places = [
            places_of(self._db.app(sub.app, create=True), sub, post) for sub, post in zip(subs, posts, strict=True)
        ]
        held = self._look(
            [place for each, post in zip(places, posts, strict=True) if post.external_id is not None for place in each]
        )
        self._posting = Posting(held, range(first, first + items_needed(places)), self._now)
        return self._posting.plan(subs, posts, places, last, pushes)

    def _look(self, places: Sequence[Place]) -> dict[Place, Held]:
        """The items that are active there, or else the latest that was deleted by its user."""
        if not places:
            return {}
        found: dict[Place, Held] = {}
        for state in ("i.deleted = 1 AND i.digest IS NOT NULL ORDER BY i.id", "i.deleted = 0"):
            rows = self._db.connection.execute(
                f"SELECT json_array(j.key, i.digest, coalesce(i.pushes, ''), {COLUMNS}) FROM json_each(?) j CROSS JOIN feed_item i ON i.app = j.value->>0 "
                "AND i.usr = j.value->>1 AND i.external = j.value->>3 AND coalesce(i.topic, '') = j.value->>2 AND "
                + state,
                (dumps(places),),
            )
            for (text,) in rows:
                key, digest, pushes, *row = orjson.loads(text)
                found[places[key]] = (item_of(row), digest, pushes.split())
        return found

    def give_back(self) -> None:
        """Nothing is written after all."""
        self._db.run("UPDATE feed SET seq = seq - ?", self._numbers)

    def write(self) -> None:
        """Store it all."""
        if self._posting is None:
            return
        self._db.many(_WRITE, self._posting.rows.values())
        if self._posting.cleared:
            chosen = dumps(self._posting.cleared)
            self._db.run("DELETE FROM feed_state WHERE item IN (SELECT value FROM json_each(?))", chosen)
            self._db.run("DELETE FROM feed_seen WHERE item IN (SELECT value FROM json_each(?))", chosen)
        self._db.many(
            "UPDATE feed_state SET seq = j.value->>2 FROM jsonb_each(?) j WHERE feed_state.item = j.value->>0",
            self._posting.moved,
        )
        self._db.many(
            "UPDATE feed_fallback SET seq = j.value->>2 FROM jsonb_each(?) j WHERE feed_fallback.item = j.value->>0 "
            "AND feed_fallback.seq = j.value->>1",
            self._posting.moved,
        )


_WRITE = (
    f"INSERT INTO feed_item ({', '.join(NAMES)}) SELECT {', '.join(f'value->>{n}' for n in range(len(NAMES)))} FROM jsonb_each(?) "
    "WHERE true ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in NAMES[4:])
)


def next_seq(db: Db, numbers: int = 1) -> int:
    """The last of so many new numbers of the sequence of changes."""
    return int(db.value("UPDATE feed SET seq = seq + ? RETURNING seq", numbers))


def write_tombstones(db: Db, numbers: Sequence[int], first: int, now: float) -> None:
    """These items become tombstones, for everybody, under the numbers from `first` on."""
    db.many(
        "UPDATE feed_item SET deleted = 1, content = '', digest = NULL, pushes = '', modified_at = j.value->>2, writer = 0, seq = j.value->>1 "
        "FROM jsonb_each(?) j WHERE feed_item.id = j.value->>0",
        ([number, seq, now] for seq, number in enumerate(numbers, first)),
    )
    db.run("DELETE FROM feed_state WHERE item IN (SELECT value FROM json_each(?))", dumps(list(numbers)))


def posted(db: Db, sub: Submission, id: str) -> FeedWritten:
    """What the feed write of an earlier submission of that id came to, as things stand now: for a replay."""
    assert isinstance(sub.feed, FeedPost)
    user = sub.target.names[0] if sub.target.kind in ("user", "users") else ""
    rows = db.rows(
        COLUMNS,
        "(SELECT * FROM feed_item WHERE app = ?1 AND usr = ?2 AND (uuid = ?3 OR (external = ?4 AND deleted = 0)) "
        "ORDER BY uuid = ?3 DESC, id DESC LIMIT 1) i",
        db.app(sub.app),
        user,
        id,
        sub.feed.external_id,
    )
    item = item_of(rows[0]) if rows else None
    return FeedWritten(
        item=None if sub.target.kind == "users" else item,
        id=item.id if item else id,
        seq=item.seq if item else 0,
        changed=False,
    )
