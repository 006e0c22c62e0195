"""The feed facet: `ModelStorage.feed`."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.counts import Counts
from fanout.core.feed import FeedItem, FeedPage, FeedQuery, Subscribed, Subscription, SubscriptionRequest, Touched
from tests.oracle import feed_items, feed_subscriptions
from tests.oracle.tables import Tables

__all__ = ["ModelFeed"]


class ModelFeed:
    """`plugin.feed.Feed` over the tables."""

    def __init__(self, tables: Tables) -> None:
        self._t = tables

    async def identity(self) -> int:
        """See `Feed`."""
        return self._t.feed.identity

    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        """See `Feed`."""
        self._t.changes += 1
        return feed_subscriptions.subscribe(self._t, wanted, now)

    async def subscriptions(self, app: str, user: str) -> list[Subscription]:
        """See `Feed`."""
        return feed_subscriptions.listing(self._t, app, user)

    async def subscription(self, app: str, unsid: str) -> Subscription | None:
        """See `Feed`."""
        return feed_subscriptions.by_unsid(self._t, app, unsid)

    async def unsubscribe(self, app: str, user: str, id: int, now: float) -> bool:
        """See `Feed`."""
        done = feed_subscriptions.unsubscribe(self._t, app, user, id, now)
        self._t.changes += done
        return done

    async def expiring(self, app: str, *, after: float, until: float, limit: int = 1000) -> list[Subscription]:
        """See `Feed`."""
        return feed_subscriptions.expiring(self._t, app, after, until, limit)

    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        """See `Feed`."""
        return feed_items.page(self._t, app, user, query, now)

    async def item(self, app: str, user: str, id: str, now: float) -> FeedItem | None:
        """See `Feed`."""
        found = feed_items.find(self._t, app, user, id, now)
        return None if found is None else found[1]

    async def pushes(self, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
        """See `Feed`."""
        found = feed_items.find(self._t, app, user, id, now, deleted=True)
        return found[0].pushes if found is not None and found[0].user else ()

    async def fetched(self, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
        """See `Feed`."""
        self._t.changes += 1
        feed_subscriptions.see(self._t, app, user, unsid, items, now)

    async def counts(self, app: str, user: str, now: float) -> Counts:
        """See `Feed`."""
        return feed_items.counts(self._t, app, user, now)

    async def mark_seen(self, app: str, user: str, item: str | None, now: float) -> Counts | None:
        """See `Feed`."""
        return feed_items.mark_seen(self._t, app, user, item, now)

    async def touched(self, after: int) -> Touched:
        """See `Feed`."""
        return feed_items.touched(self._t, after)
