"""The feed as a user's clients read it: pages, single items, counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from fanout.core.counts import Counts
from fanout.core.cursor import Cursor, Listing, parse, topics_digest
from fanout.core.feed import ACTIONS, FeedItem, FeedPage, FeedQuery, ItemAction
from fanout.engine import Engine
from fanout.errors import UsageError
from fanout.plugin import Clock, Feed
from fanout.service.feed.behind import fresh
from fanout.service.feed.errors import FeedError
from fanout.service.feed.hub import Hub
from fanout.service.feed.settings import FeedSettings

__all__ = ["Read", "Reading", "Wanted", "no_item"]

_PART = 32
"""Items that are read from storage at once: 2 MB where each has the largest content."""


@dataclass(frozen=True, slots=True)
class Read:
    """A page of the feed. `cursor` is where to go on: at once where there is `more`, else when something has
    changed."""

    items: tuple[FeedItem, ...]
    cursor: str
    more: bool


class Wanted(TypedDict, total=False):
    """Which items a reader wants, and as which device."""

    order: Literal["changed", "newest"]
    unread: bool | None
    action: ItemAction | None
    status: Literal["active", "deleted", "any"] | None
    unsid: str


class Reading:
    """The part of `FeedService` that changes no item."""

    hub: Hub

    def __init__(self, engine: Engine, settings: FeedSettings, clock: Clock) -> None:
        self.settings = settings
        self._engine = engine
        self._clock = clock
        self._identity: int | None = None
        self._identity_of = 0

    @property
    def _facet(self) -> Feed:
        """The storage's part for the feed, for a call in the engine's own loop."""
        self._engine.ensure_loop()
        return self._engine.reads.feed

    async def list(
        self, app: str, user: str, *, cursor: str | None = None, limit: int = 100, **wanted: Unpack[Wanted]
    ) -> Read:
        """A page of the feed, which ends after `limit` items or `FeedSettings.page_bytes` of content, whichever comes
        first.

        From the beginning, or with a `cursor` the changes since (tombstones too), or the page after one in the order
        `newest`. Raises `UsageError`, and `FeedError` 410 for a cursor that is too old.
        """
        if not 0 < limit <= 1000:
            raise UsageError("limit is 1 to 1000.")
        items: list[FeedItem] = []
        size = 0
        while True:
            # In parts of a fixed number: the size of the items so far says nothing of the next ones.
            read = await self._part(app, user, cursor=cursor, limit=min(limit - len(items), _PART), **wanted)
            items += read.items
            size += sum(len(item.content) for item in read.items)
            if not read.more or len(items) >= limit or size >= self.settings.page_bytes:
                return Read(tuple(items), read.cursor, read.more)
            cursor = read.cursor

    async def _part(
        self,
        app: str,
        user: str,
        *,
        cursor: str | None,
        limit: int,
        order: Literal["changed", "newest"] = "changed",
        unread: bool | None = None,
        action: ItemAction | None = None,
        status: Literal["active", "deleted", "any"] | None = None,
        unsid: str = "",
    ) -> Read:
        if action is not None and action not in ACTIONS:
            raise UsageError(f"action is one of {', '.join(ACTIONS)}.")
        feed, now = self._facet, self._clock.now()
        database = await self._database()
        position = None if cursor is None else parse(cursor)
        if position is not None and position.database != database:
            raise _resync()
        newest = position.newest if isinstance(position, Listing) else position is None and order == "newest"
        query = FeedQuery(
            unread=unread,
            action=action,
            status=_status(status, position),
            limit=limit,
            until=position.seq if isinstance(position, Listing) else 2**62,
            newest_before=None if not newest else position.position if isinstance(position, Listing) else 2**62,
            after=_after(position) if not newest else 0,
        )
        page = await feed.read(app, user, query, now)
        if position is not None and not fresh(position, page):
            raise _resync()
        await self._fetched(app, user, unsid, page.items, now)
        return Read(page.items, str(_next(position, page, database, newest)), page.more)

    async def get(self, app: str, user: str, id: str, *, unsid: str = "") -> FeedItem:
        """One item, by its id or its sender's. Raises `FeedError` 404."""
        item = await self.find(app, user, id)
        if item is None:
            raise no_item()
        await self._fetched(app, user, unsid, (item,), self._clock.now())
        return item

    async def find(self, app: str, user: str, id: str) -> FeedItem | None:
        """One item, by its id or its sender's; a tombstone by its id only. None for an item that is not hers or has
        expired."""
        return await self._facet.item(app, user, id, self._clock.now())

    async def _fetched(self, app: str, user: str, unsid: str, items: Sequence[FeedItem], now: float) -> None:
        """Note the items that a device has, where a fallback would be sent to it otherwise."""
        awaited = [item.id for item in items if item.fallback_at is not None and item.fallback_at > now]
        if unsid and awaited:
            await self._facet.fetched(app, user, unsid, awaited, now)

    async def position(self, cursor: str) -> int:
        """The number of the last change that the reader of this cursor knows. Raises `UsageError`, and `FeedError` 410
        for another database's."""
        position = parse(cursor)
        if position.database != await self._database():
            raise _resync()
        return position.seq

    async def counts(self, app: str, user: str) -> Counts:
        """How many items are unread, and how many have come since the user last looked."""
        return await self._facet.counts(app, user, self._clock.now())

    async def mark_seen(self, app: str, user: str, item: str | None = None) -> Counts:
        """The user has seen her feed up to this item, by its id or its sender's; with None, all that is there. The
        counts afterwards.

        Raises `FeedError` 404.
        """
        counts = await self._facet.mark_seen(app, user, item, self._clock.now())
        if counts is None:
            raise no_item()
        self.hub.nudge()
        return counts

    async def _database(self) -> int:
        incarnation = self._engine.reads.incarnation
        if self._identity is None or self._identity_of != incarnation:
            self._identity, self._identity_of = await self._facet.identity(), incarnation
        return self._identity


def _status(
    asked: Literal["active", "deleted", "any"] | None, position: Cursor | Listing | None
) -> Literal["active", "deleted"] | None:
    if asked is None:
        return None if isinstance(position, Cursor) else "active"
    return None if asked == "any" else asked


def _after(position: Cursor | Listing | None) -> int:
    if position is None:
        return 0
    return position.position if isinstance(position, Listing) else position.seq


def _next(position: Cursor | Listing | None, page: FeedPage, database: int, newest: bool) -> Cursor | Listing:
    topics = topics_digest(page.topics)
    if isinstance(position, Cursor):
        return Cursor(database, page.seq, topics)
    began = page.head if position is None else position.seq
    if not page.more:
        return Cursor(database, began, topics)
    last = page.items[-1]
    return Listing(database, began, topics, last.number if newest else last.seq, newest)


def _resync() -> FeedError:
    return FeedError(
        410, "resync", "The cursor is too old, or the topics of the user's devices have changed: read without a cursor."
    )


def no_item() -> FeedError:
    """The answer to an id that names nothing in the user's feed."""
    return FeedError(404, "item", "There is no such item in this user's feed.")
