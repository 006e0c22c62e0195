"""The feed facet: `SqlStorage.feed`."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.counts import Counts
from fanout.core.feed import FeedItem, FeedPage, FeedQuery, Subscribed, Subscription, SubscriptionRequest, Touched
from fanout.storage.sql import feed_counts, feed_items, feed_subscriptions
from fanout.storage.sql.driver import Driver

__all__ = ["SqlFeed"]


class SqlFeed:
    """`plugin.feed.Feed`, by the storage's own ways to read and write."""

    def __init__(self, driver: Driver) -> None:
        self._look, self._write = driver.look, driver.write

    async def identity(self) -> int:
        """See `Feed`."""
        return await self._look(feed_items.identity)

    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        """See `Feed`."""
        return await self._write(feed_subscriptions.subscribe, wanted, now)

    async def subscriptions(self, app: str, user: str) -> list[Subscription]:
        """See `Feed`."""
        return await self._look(feed_subscriptions.listing, app, user)

    async def subscription(self, app: str, unsid: str) -> Subscription | None:
        """See `Feed`."""
        return await self._look(feed_subscriptions.by_unsid, app, unsid)

    async def unsubscribe(self, app: str, user: str, id: int, now: float) -> bool:
        """See `Feed`."""
        return await self._write(feed_subscriptions.unsubscribe, app, user, id, now)

    async def expiring(self, app: str, *, after: float, until: float, limit: int = 1000) -> list[Subscription]:
        """See `Feed`."""
        return await self._look(feed_subscriptions.expiring, app, after, until, limit)

    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        """See `Feed`."""
        return await self._look(feed_items.page, app, user, query, now)

    async def item(self, app: str, user: str, id: str, now: float) -> FeedItem | None:
        """See `Feed`."""
        return await self._look(feed_items.find, app, user, id, now)

    async def pushes(self, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
        """See `Feed`."""
        return await self._look(feed_items.pushes, app, user, id, now)

    async def fetched(self, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
        """See `Feed`."""
        await self._write(feed_subscriptions.see, app, user, unsid, items, now)

    async def counts(self, app: str, user: str, now: float) -> Counts:
        """See `Feed`."""
        return await self._look(feed_counts.counts, app, user, now)

    async def mark_seen(self, app: str, user: str, item: str | None, now: float) -> Counts | None:
        """See `Feed`."""
        return await self._write(feed_counts.mark_seen, app, user, item, now)

    async def touched(self, after: int) -> Touched:
        """See `Feed`."""
        return await self._look(feed_items.touched, after)
