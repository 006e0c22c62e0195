"""Posts into the feed, many at once: one read of what they replace, one write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fanout.core.feed import FeedItem, FeedPost, FeedWritten
from fanout.core.records import Submission
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.feed_items import COLUMNS, item_of

__all__ = ["Posts", "bury", "next_seq", "posted"]

_Place = tuple[int, str, str, str]
"""(app's number, user, topic or "", external id): where one item at most is active."""


class Posts:
    """The feed writes of one put: `plan` says what they come to, `write` stores them."""

    def __init__(self, db: Db, now: float) -> None:
        self._db = db
        self._now = now
        self.identity = 0
        self._active: dict[_Place, FeedItem] = {}
        self._rows: dict[int, list[Any]] = {}
        self._cleared: list[int] = []
        self._next = 0

    def plan(self, subs: Sequence[Submission]) -> list[FeedWritten]:
        """What each comes to, in order. The item's id is the notification's, or that of the item which is replaced."""
        if not subs:
            return []
        posts = [sub.feed for sub in subs if isinstance(sub.feed, FeedPost)]
        numbers = [1 if post.external_id is None else 2 for post in posts]
        last, self.identity = self._db.json(
            "UPDATE feed SET seq = seq + ? RETURNING json_array(seq, identity)", sum(numbers)
        )
        self._next = self._db.next_id("feed_item")
        places = [_places(self._db.app(sub.app, create=True), sub, post) for sub, post in zip(subs, posts, strict=True)]
        self._look(
            [place for each, post in zip(places, posts, strict=True) if post.external_id is not None for place in each]
        )
        seq = last - sum(numbers)
        written = []
        for sub, post, where, count in zip(subs, posts, places, numbers, strict=True):
            seq += count
            written.append(self._post(sub, post, where, seq))
        return written

    def _look(self, places: Sequence[_Place]) -> None:
        """The items that are active there."""
        if not places:
            return
        rows = self._db.rows(
            f"j.key, {COLUMNS}",
            "json_each(?) j CROSS JOIN feed_item i ON i.app = j.value->>0 AND i.user = j.value->>1 AND i.external = j.value->>3 "
            "AND coalesce(i.topic, '') = j.value->>2 AND i.deleted = 0",
            dumps(places),
        )
        self._active = {places[key]: item_of(row) for key, *row in rows}

    def _post(self, sub: Submission, post: FeedPost, places: Sequence[_Place], seq: int) -> FeedWritten:
        many = sub.target.kind == "users"
        known: FeedItem | None = None
        item = _item(sub, post, places, seq, self._now)
        for place in places:
            earlier = self._active.get(place) if post.external_id is not None else None
            if earlier is not None and not many and earlier.expires_at > self._now:
                known = earlier
                item = replace(
                    item,
                    id=known.id,
                    number=known.number,
                    created_at=known.created_at,
                    modified_at=self._now,
                )
                self._cleared.append(known.number)
            else:
                if earlier is not None:
                    self._bury(place, earlier, seq - 1)
                item = replace(item, number=self._next)
                self._next += 1
            if post.external_id is not None:
                self._active[place] = item
            self._store(place, item)
        return FeedWritten(item=None if many else item, id=item.id, seq=seq, replaced=known is not None)

    def _bury(self, place: _Place, item: FeedItem, seq: int) -> None:
        """It becomes a tombstone."""
        grave = replace(item, content=b"", deleted=True, modified_at=self._now, writer=0, seq=seq)
        self._rows.pop(item.number, None)
        self._store(place, grave)
        self._cleared.append(item.number)

    def _store(self, place: _Place, item: FeedItem) -> None:
        app, user, topic, _ = place
        self._rows[item.number] = [
            item.number,
            app,
            user,
            topic or None,
            item.id,
            item.external_id,
            item.group,
            item.priority,
            item.content.decode(),
            item.created_at,
            item.modified_at,
            item.expires_at,
            item.display_until,
            item.fallback_at,
            int(item.read),
            item.action,
            int(item.deleted),
            item.writer,
            item.seq,
        ]

    def write(self) -> None:
        """Store it all."""
        self._db.many(_WRITE, self._rows.values())
        if self._cleared:
            chosen = dumps(self._cleared)
            self._db.run("DELETE FROM feed_state WHERE item IN (SELECT value FROM json_each(?))", chosen)
            self._db.run("DELETE FROM feed_seen WHERE item IN (SELECT value FROM json_each(?))", chosen)


_NAMES = (
    "id, app, user, topic, uuid, external, grp, priority, content, created_at, modified_at, expires_at, display_until, "
    "fallback_at, read, action, deleted, writer, seq"
)
_WRITE = (
    f"INSERT INTO feed_item ({_NAMES}) SELECT {', '.join(f'value->>{n}' for n in range(19))} FROM jsonb_each(?) WHERE true "
    "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _NAMES.split(", ")[4:])
)


def _places(app: int, sub: Submission, post: FeedPost) -> list[_Place]:
    external = post.external_id or ""
    match sub.target.kind:
        case "user" | "users":
            return [(app, user, "", external) for user in sub.target.names]
        case "topic":
            return [(app, "", sub.target.names[0], external)]
        case _:
            return [(app, "", "", external)]


def _item(sub: Submission, post: FeedPost, places: Sequence[_Place], seq: int, now: float) -> FeedItem:
    return FeedItem(
        id=sub.id,
        number=0,
        seq=seq,
        external_id=post.external_id,
        group=post.group,
        priority=post.priority,
        content=post.content,
        created_at=now,
        modified_at=None,
        expires_at=post.expires_at,
        display_until=post.display_until,
        fallback_at=post.fallback_at,
        broadcast=not places[0][1],
    )


def next_seq(db: Db, numbers: int = 1) -> int:
    """The last of so many new numbers of the sequence of changes."""
    return int(db.value("UPDATE feed SET seq = seq + ? RETURNING seq", numbers))


def bury(db: Db, numbers: Sequence[int], first: int, now: float) -> None:
    """These items become tombstones, for everybody, under the numbers from `first` on."""
    db.many(
        "UPDATE feed_item SET deleted = 1, content = '', modified_at = j.value->>2, writer = 0, seq = j.value->>1 "
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
        "(SELECT * FROM feed_item WHERE app = ?1 AND user = ?2 AND (uuid = ?3 OR (external = ?4 AND deleted = 0)) "
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
