"""Posts into the feed, many at once: what they come to, given what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fanout.core.feed import FeedItem, FeedPost, FeedWritten
from fanout.core.records import Submission

__all__ = ["NAMES", "Place", "Posting", "items_needed", "numbers_needed", "places_of"]

Place = tuple[int, str, str, str]
"""(app's number, user, topic or "", external id): where one item at most is active."""

NAMES = (
    "id",
    "app",
    "user",
    "topic",
    "uuid",
    "external",
    "grp",
    "priority",
    "content",
    "created_at",
    "modified_at",
    "expires_at",
    "display_until",
    "fallback_at",
    "read",
    "action",
    "deleted",
    "writer",
    "seq",
)
"""The columns of `Posting.rows`. The first four of an item never change."""


def numbers_needed(posts: Sequence[FeedPost]) -> list[int]:
    """How many numbers of the sequence of changes each uses: one for what it buries, too, where it may."""
    return [1 if post.external_id is None else 2 for post in posts]


def items_needed(places: Sequence[Sequence[Place]]) -> int:
    """How many new items they come to at most."""
    return sum(map(len, places))


def places_of(app: int, sub: Submission, post: FeedPost) -> list[Place]:
    """Where the post's items are to stand."""
    external = post.external_id or ""
    match sub.target.kind:
        case "user" | "users":
            return [(app, user, "", external) for user in sub.target.names]
        case "topic":
            return [(app, "", sub.target.names[0], external)]
        case _:
            return [(app, "", "", external)]


class Posting:
    """The posts of one put. `rows` is what is to be stored, by the items' numbers; of `cleared` items nobody has a state or has
    fetched them any more. `active` holds the items that are active at the posts' places."""

    def __init__(self, active: Mapping[Place, FeedItem], numbers: Sequence[int], now: float) -> None:
        self._active = dict(active)
        self._numbers = iter(numbers)
        self._now = now
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.cleared: list[int] = []

    def plan(
        self, subs: Sequence[Submission], posts: Sequence[FeedPost], places: Sequence[Sequence[Place]], last: int
    ) -> list[FeedWritten]:
        """What each comes to, in order, under the numbers of the sequence of changes that end with `last`. The item's id is the
        notification's, or that of the item which is replaced."""
        counts = numbers_needed(posts)
        seq = last - sum(counts)
        written = []
        for sub, post, where, count in zip(subs, posts, places, counts, strict=True):
            seq += count
            written.append(self._post(sub, post, where, seq))
        return written

    def _post(self, sub: Submission, post: FeedPost, places: Sequence[Place], seq: int) -> FeedWritten:
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
                self.cleared.append(known.number)
            else:
                if earlier is not None:
                    self._bury(place, earlier, seq - 1)
                item = replace(item, number=next(self._numbers))
            if post.external_id is not None:
                self._active[place] = item
            self._store(place, item)
        return FeedWritten(item=None if many else item, id=item.id, seq=seq, replaced=known is not None)

    def _bury(self, place: Place, item: FeedItem, seq: int) -> None:
        """It becomes a tombstone."""
        grave = replace(item, content=b"", deleted=True, modified_at=self._now, writer=0, seq=seq)
        self.rows.pop(item.number, None)
        self._store(place, grave)
        self.cleared.append(item.number)

    def _store(self, place: Place, item: FeedItem) -> None:
        app, user, topic, _ = place
        self.rows[item.number] = (
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
            item.read,
            item.action,
            item.deleted,
            item.writer,
            item.seq,
        )


def _item(sub: Submission, post: FeedPost, places: Sequence[Place], seq: int, now: float) -> FeedItem:
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
