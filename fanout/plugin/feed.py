"""The contract of a storage's third facet: subscriptions, and the feed that every device of a user reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fanout.core.counts import Counts
from fanout.core.feed import FeedItem, FeedPage, FeedQuery, Subscribed, Subscription, SubscriptionRequest, Touched

__all__ = ["Feed"]


class Feed(Protocol):
    """Subscriptions and feed items of one database: `storage.feed`. Every method is one transaction, as in `Storage`.

    Feed items are written by `Storage.put`, with `Submission.feed`: the pushes and the stored item are one commit.
    Every write gets the next number (`seq`) of one sequence per database; numbers only grow, and are committed in their
    order. An item of a topic or of `all` is stored once, and read by whom it concerns: for a topic, users of whose
    endpoints (active, gone or expired) one carries the tag at that time. Only a user who changes such an item has a row
    of her own for it.

    `Storage.expire` turns items past their time into tombstones, each with a number of its own; `Storage.prune` deletes
    tombstones older than `Retention.tombstones`, and subscriptions that expired longer ago than `Retention.quarantine`;
    `Storage.erase_user` also forgets the user's items, states and subscriptions.
    """

    async def identity(self) -> int:
        """32 bits that were drawn when the database was made: whose cursors are its own."""
        ...

    # -- subscriptions

    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        """Enter or renew. The same app, user and device keep their id and UNSID, also after expiry.

        A new address takes the place of the old one (the endpoint keeps its id where it can), and the endpoint keeps its tags.
        Another user's device of the same name is another device. A subscription of another user whose UNSID is `wanted.former` ends, with
        its endpoint; and so does any other subscription of the same address. Where the address is an active endpoint of another user, that
        endpoint must be of the subscription `wanted.former`, or the address must prove the device (`core.feed.proves`): else the answer is
        `refused`, and nothing changes. Of more than `wanted.most` subscriptions of the user those end that were renewed longest ago, each with the event
        `subscription.ended`; the wanted one stays.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def subscriptions(self, app: str, user: str) -> list[Subscription]:
        """All of a user's, expired ones too, by id.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
        """
        ...

    async def subscription(self, app: str, unsid: str) -> Subscription | None:
        """The one of that UNSID, in whatever state.

        Args:
            app: The app.
            unsid: The user notification subscription id.
        """
        ...

    async def unsubscribe(self, app: str, user: str, id: int, now: float) -> bool:
        """End it: its endpoint is removed and its UNSID means nothing any more. False where there is no such subscription.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            id: The subscription's id.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def expiring(self, app: str, *, after: float, until: float, limit: int = 1000) -> list[Subscription]:
        """Those whose time ends in (after, until], soonest first: with `after` = now the expiring, with `until` = now the expired.

        Args:
            app: The app.
            limit: The most entries that one call handles or returns.
        """
        ...

    # -- the feed

    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        """Items of that user, as they are at one moment.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            query: The filter, cursor and page size.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def item(self, app: str, user: str, id: str, now: float) -> FeedItem | None:
        """One item, by its id or its sender's; a tombstone only by its id. None for what is not hers or has expired.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            id: The item's id, or the id that its sender gave it.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def pushes(self, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
        """The notifications that pushed the user's item of that id, or its sender's: the last `core.feed.PUSHES` of them. None of an item that
        others have too.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            id: The item's id, or the id that its sender gave it.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def fetched(self, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
        """That device has these items: no fallback is sent to it for them. An UNSID that is not hers changes nothing.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            unsid: The subscription of the device.
            items: The items' ids.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def counts(self, app: str, user: str, now: float) -> Counts:
        """How many active items of that user's feed are unread and unseen, at one moment.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def mark_seen(self, app: str, user: str, item: str | None, now: float) -> Counts | None:
        """The user has seen her feed up to this item, by its id or its sender's; with None, up to the newest of the database. The counts afterwards.

        Up to where she has seen it never moves back. Where it moves, that is a change of her feed (`touched`), without an item.
        None where she has no such item.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            item: The item's id, or the id that its sender gave it; None for the newest of the database.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def touched(self, after: int) -> Touched:
        """The users whose feeds have changed after that number, and those who have looked.

        Args:
            after: The number of the last change that the caller has read; 0 for all.
        """
        ...
