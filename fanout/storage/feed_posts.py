"""Posts into the feed, many at once: their effect, given the stored items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fanout.core.feed import PUSHES, FeedItem, FeedPost, FeedWritten, post_digest
from fanout.core.records import Submission
from fanout.storage.feed_items import COMMON, OWN, common_of, own_of

__all__ = ["CHANGING", "POSTED", "Held", "Place", "Posting", "numbers_needed", "places_of", "repeats"]

Place = tuple[int, str, str, str]
"""(app's number, user, topic or "", external id): where one item at most is active."""

Held = tuple[FeedItem, str | None, list[str]]
"""An item; the digest of its post, None where it is none that a post can repeat; and the notifications that pushed
it."""

_FIXED = {"app": "int", "usr": "text", "topic": "text"}
_ITEM = (
    {name: type for name, (_, type) in COMMON.items()} | OWN | dict.fromkeys(("content", "digest", "pushes"), "text")
)
POSTED = _FIXED | _ITEM
"""The columns of `Posting.rows`, with their types."""
CHANGING = tuple(name for name in _ITEM if name != "id")
"""Those that an item may come to have another value in."""


def numbers_needed(posts: Sequence[FeedPost]) -> list[int]:
    """How many numbers of the sequence of changes each uses: two where it may make a tombstone of an earlier item."""
    return [1 if post.external_id is None else 2 for post in posts]


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


def repeats(sub: Submission, post: FeedPost, stored: Sequence[str | None]) -> bool:
    """Whether nothing is new in the post, given the digests of the items at its places (None for an item that cannot be
    repeated)."""
    return post.external_id is not None and sub.idempotency_key is None and {post_digest(post)} == set(stored)


class Posting:
    """The posts of one put. `rows` are the rows to store, by the items' numbers. The states and fetches of `cleared`
    items are deleted. `moved` are items whose expiry alone has moved: (number, former seq, seq). `held` are the items
    that are active at the posts' places, or where there is none the latest that its user has deleted."""

    def __init__(self, held: Mapping[Place, Held], numbers: Iterable[int], now: float) -> None:
        self._held = dict(held)
        self._numbers = iter(numbers)
        self._now = now
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.cleared: list[int] = []
        self.moved: list[tuple[int, int, int]] = []

    def plan(
        self,
        subs: Sequence[Submission],
        posts: Sequence[FeedPost],
        places: Sequence[Sequence[Place]],
        last: int,
        pushes: Sequence[Sequence[str]],
    ) -> list[FeedWritten]:
        """The result of each, in order, under the numbers of the sequence of changes that end with `last`. The item's
        id is the notification's, or that of the item which is replaced. `pushes` are the notifications of each."""
        counts = numbers_needed(posts)
        seq = last - sum(counts)
        written = []
        for sub, post, where, count, ids in zip(subs, posts, places, counts, pushes, strict=True):
            seq += count
            stored = [self._repeatable(place) for place in where]
            if repeats(sub, post, [None if each is None else each[1] for each in stored]):
                written.append(self._again(sub, post, where, seq))
            else:
                written.append(self._post(sub, post, where, seq, ids))
        return written

    def _repeatable(self, place: Place) -> Held | None:
        stored = self._held.get(place)
        return stored if stored is not None and stored[0].expires_at > self._now else None

    def _again(self, sub: Submission, post: FeedPost, places: Sequence[Place], seq: int) -> FeedWritten:
        """Nothing is new: the expiry moves. There is a place at least."""
        for place in places:
            item, digest, pushes = self._held[place]
            # Of a tombstone no reader is told anything; it stays from now on as long as any.
            moved = replace(
                item, expires_at=post.expires_at, modified_at=self._now, seq=item.seq if item.deleted else seq
            )
            if not item.deleted:
                self.moved.append((item.number, item.seq, seq))
            self._held[place] = (moved, digest, pushes)
            self._store(place, moved, digest, pushes)
        last, _, _ = self._held[places[-1]]
        many = sub.target.kind == "users"
        return FeedWritten(item=None if many else last, id=last.id, seq=last.seq, replaced=True, changed=False)

    def _post(
        self, sub: Submission, post: FeedPost, places: Sequence[Place], seq: int, ids: Sequence[str]
    ) -> FeedWritten:
        many = sub.target.kind == "users"
        known: FeedItem | None = None
        # An item has each field of its post.
        item = FeedItem(
            id=sub.id,
            number=0,
            seq=seq,
            created_at=self._now,
            modified_at=None,
            broadcast=not places[0][1],
            **{name: getattr(post, name) for name in FeedPost.__slots__},
        )
        digest = None if post.external_id is None else post_digest(post)
        for place in places:
            pushes = [] if many else list(ids)
            stored = self._held.get(place) if post.external_id is not None else None
            earlier = None if stored is None or stored[0].deleted else stored[0]
            if earlier is not None and not many and earlier.expires_at > self._now:
                known = earlier
                pushes = [*(stored[2] if stored is not None else ()), *pushes]
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
                self._held[place] = (item, digest, pushes)
            self._store(place, item, digest, pushes)
        return FeedWritten(item=None if many else item, id=item.id, seq=seq, replaced=known is not None)

    def _bury(self, place: Place, item: FeedItem, seq: int) -> None:
        """It becomes a tombstone."""
        grave = replace(item, content=b"", deleted=True, modified_at=self._now, writer=0, seq=seq)
        self.rows.pop(item.number, None)
        self._store(place, grave, None, [])
        self.cleared.append(item.number)

    def _store(self, place: Place, item: FeedItem, digest: str | None, pushes: Sequence[str]) -> None:
        app, user, topic, _ = place
        more = (item.content.decode(), digest, " ".join(pushes[-PUSHES:]))
        self.rows[item.number] = (app, user, topic or None, *common_of(item), *own_of(item), *more)
