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
    order. An item of a topic or of `all` is stored once, and read by the users that it concerns: for a topic, those of
    whose endpoints (active, gone or expired) one carries the tag at that time. Only a user that changes such an item
    has an own row for it.

    `Storage.expire` turns items past their time into tombstones, each with a number of its own; `Storage.prune` deletes
    tombstones older than `Retention.tombstones`, and subscriptions that expired longer ago than `Retention.quarantine`;
    `Storage.erase_user` also forgets the user's items, states and subscriptions.
    """

    async def identity(self) -> int:
        """The number that was drawn when the database was made, of 32 bits: cursors with it are its own."""
        ...

    # -- subscriptions

    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        """Enter or renew. The same app, user and device keep their id and UNSID, also after expiry.

        A new address takes the place of the old one (the endpoint keeps its id where it can), and the endpoint keeps
        its tags. Another user's device of the same name is another device. A subscription of another user whose UNSID
        is `wanted.former` ends, with its endpoint; and so does any other subscription of the same address. Where the
        address is an active endpoint of another user, that endpoint must be of the subscription `wanted.former`, or the
        address must prove the device (`core.feed.proves`): else the answer is `refused`, and nothing changes. Of more
        than `wanted.most` subscriptions of the user those end that were renewed longest ago, each with the event
        `subscription.ended`; the wanted one stays.

        Args:
            wanted: The request.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The subscription, and the results of the others.
        """
        ...

    async def subscriptions(self, app: str, user: str) -> list[Subscription]:
        """All of a user's, expired ones too.

        Args:
            app: The app.
            user: The user's name, as the app gives it.

        Returns:
            The subscriptions, by id.
        """
        ...

    async def subscription(self, app: str, unsid: str) -> Subscription | None:
        """The one of that UNSID, in any state.

        Args:
            app: The app.
            unsid: The user notification subscription id.

        Returns:
            The subscription; None where there is none.
        """
        ...

    async def unsubscribe(self, app: str, user: str, id: int, now: float) -> bool:
        """End it: its endpoint is removed and its UNSID means nothing any more.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            id: The subscription's id.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            Whether there was such a subscription.
        """
        ...

    async def expiring(self, app: str, *, after: float, until: float, limit: int = 1000) -> list[Subscription]:
        """Subscriptions by the end of their time: with `after` = now the expiring, with `until` = now the expired.

        Args:
            app: The app.
            after: The time after which it ends, in UNIX seconds.
            until: The time at or before which it ends, in UNIX seconds.
            limit: The number of entries that one call handles or returns, at most.

        Returns:
            The subscriptions, soonest first.
        """
        ...

    # -- the feed

    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        """Items of one user, as they are at one moment.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            query: The filter, cursor and page size.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The items, and the position from which to go on.
        """
        ...

    async def item(self, app: str, user: str, id: str, now: float) -> FeedItem | None:
        """One item, by its id or its sender's; a tombstone only by its id.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            id: The item's id, or the id that its sender gave it.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The item; None where the user has none of that id, or it has expired.
        """
        ...

    async def pushes(self, app: str, user: str, id: str, now: float) -> tuple[str, ...]:
        """The notifications that pushed an item of the user.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            id: The item's id, or the id that its sender gave it.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            Ids: the last `core.feed.PUSHES` of them; none of an item that others have too.
        """
        ...

    async def fetched(self, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
        """A device has these items: no fallback is sent to it for them. An UNSID that is not this user's changes
        nothing.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            unsid: The subscription of the device.
            items: The items' ids.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def counts(self, app: str, user: str, now: float) -> Counts:
        """The active items of a user's feed that are unread and unseen, at one moment.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The numbers.
        """
        ...

    async def mark_seen(self, app: str, user: str, item: str | None, now: float) -> Counts | None:
        """The user has seen the feed up to this item, by its id or its sender's.

        The point up to which it is seen never moves back. Where it moves, that is a change of the feed (`touched`),
        without an item.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
            item: The item's id, or the id that its sender gave it; None for the newest of the database.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The counts afterwards; None where the user has no such item.
        """
        ...

    async def touched(self, after: int) -> Touched:
        """The users whose feeds have changed after that number, and those that have looked.

        Args:
            after: The number of the last change that the caller has read; 0 for all.

        Returns:
            The users, and the number of the last change of the database.
        """
        ...
