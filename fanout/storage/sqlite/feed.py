"""The feed facet: `SqliteStorage.feed`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fanout.core.counts import Counts
from fanout.core.feed import FeedItem, FeedPage, FeedQuery, Subscribed, Subscription, SubscriptionRequest, Touched
from fanout.storage.sqlite import feed_counts, feed_items, feed_subscriptions

__all__ = ["SqliteFeed"]

_Run = Callable[..., Awaitable[Any]]


class SqliteFeed:
    """`plugin.feed.Feed`, by the storage's own ways to read and write."""

    def __init__(self, read: _Run, write: _Run) -> None:
        self._read = read
        self._write = write

    async def identity(self) -> int:
        """See `Feed`."""
        return int(await self._read(feed_items.identity))

    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        """See `Feed`."""
        done: Subscribed = await self._write(feed_subscriptions.subscribe, wanted, now)
        return done

    async def subscriptions(self, app: str, user: str) -> list[Subscription]:
        """See `Feed`."""
        found: list[Subscription] = await self._read(feed_subscriptions.listing, app, user)
        return found

    async def subscription(self, app: str, unsid: str) -> Subscription | None:
        """See `Feed`."""
        found: Subscription | None = await self._read(feed_subscriptions.by_unsid, app, unsid)
        return found

    async def unsubscribe(self, app: str, user: str, id: int, now: float) -> bool:
        """See `Feed`."""
        return bool(await self._write(feed_subscriptions.unsubscribe, app, user, id, now))

    async def expiring(self, app: str, *, after: float, until: float, limit: int = 1000) -> list[Subscription]:
        """See `Feed`."""
        found: list[Subscription] = await self._read(feed_subscriptions.expiring, app, after, until, limit)
        return found

    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        """See `Feed`."""
        page: FeedPage = await self._read(feed_items.page, app, user, query, now)
        return page

    async def item(self, app: str, user: str, id: str, now: float) -> FeedItem | None:
        """See `Feed`."""
        found: FeedItem | None = await self._read(feed_items.find, app, user, id, now)
        return found

    async def pushes(self, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
        """See `Feed`."""
        found: tuple[str, ...] = await self._read(feed_items.pushes, app, user, id, now)
        return found

    async def fetched(self, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
        """See `Feed`."""
        await self._write(feed_subscriptions.see, app, user, unsid, items, now)

    async def counts(self, app: str, user: str, now: float) -> Counts:
        """See `Feed`."""
        found: Counts = await self._read(feed_counts.counts, app, user, now)
        return found

    async def look(self, app: str, user: str, item: str | None, now: float) -> Counts | None:
        """See `Feed`."""
        found: Counts | None = await self._write(feed_counts.look, app, user, item, now)
        return found

    async def touched(self, after: int) -> Touched:
        """See `Feed`."""
        found: Touched = await self._read(feed_items.touched, after)
        return found
