"""The feed as the service's routes use it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from fanout.bootstrap import SystemClock
from fanout.config import Settings
from fanout.core import given
from fanout.core.cursor import Cursor
from fanout.core.feed import (
    RECEIVES,
    FeedBulk,
    FeedChange,
    FeedItem,
    FeedQuery,
    FeedWritten,
    Receive,
    Subscription,
    SubscriptionRequest,
)
from fanout.core.model import Notification, Target
from fanout.engine import Engine
from fanout.engine.receipt import Receipt
from fanout.errors import NotFound, UsageError
from fanout.plugin import Clock
from fanout.service.feed.errors import FeedError
from fanout.service.feed.hub import Hub
from fanout.service.feed.plan import Fallback, NewItem, Platforms, PushPart, platform_of
from fanout.service.feed.posting import change_requests, feed_post, post_requests
from fanout.service.feed.put_batcher import PutBatcher
from fanout.service.feed.reading import Reading, no_item
from fanout.service.feed.settings import FeedSettings

__all__ = ["FeedService", "Posted"]

_SWEEP = 500
"""Items of one transaction of a bulk change."""
_FEEDS = ("user", "users", "topic", "all")


@dataclass(frozen=True, slots=True)
class Posted:
    """A post that was accepted durably, item and pushes in one commit.

    `item` is None where nothing was entered into the feed, or where each of many users has an item of her own.
    `item_id` names it in any case, "" where there is none. `receipt` follows the first form of the post, and has no id
    where nothing was to be pushed; `parts` are the ids of the other notifications of the post (other forms, bare
    signals, the fallback). `replaced`: an item of that external id was replaced. Of a replayed post (same idempotency
    key) `receipt.replayed` is true.
    """

    item: FeedItem | None
    item_id: str
    receipt: Receipt
    parts: tuple[str, ...] = ()
    replaced: bool = False


class FeedService(Reading):
    """Subscriptions and the feed, for one engine. An async context manager, which runs its event streams; enter it with
    the engine open.

    `settings` tells the transport of each binding; without it a binding is taken for the transport of its name.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings | None = None,
        feed: FeedSettings | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(engine, feed or FeedSettings(), engine.reads.clock(clock or SystemClock()))
        self._types = {(app, binding): binding for app, binding in engine.transports}
        if settings is not None:
            self._types |= {(app, binding): chosen.type for app, binding, chosen in settings.bindings()}
        self._platforms: dict[str, Platforms] = {}
        self._put_batcher = PutBatcher(engine)
        self.hub = Hub(engine.reads, self.settings, self._clock)

    async def __aenter__(self) -> Self:
        if self._engine.reads.has("feed"):
            await self.hub.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.hub.stop()
        await self._put_batcher.stop()

    # -- posting

    async def post(
        self,
        app: str,
        target: Target | str,
        item: NewItem | None,
        push: Notification | Sequence[PushPart] = (),
        *,
        fallback: Fallback | None = None,
        idempotency_key: str | None = None,
        at: float | None = None,
    ) -> Posted:
        """Enter `item` into the feed of the target and push it, in one commit.

        `push` is one notification for every platform, or one per group of platforms; nothing for none. Subscriptions
        that asked for signals get a bare one. A visible push that is too large for a gateway is sent to it with its
        body and title cut; where that is not enough, and where a raw one is too large, every device gets a bare signal.
        Without `item` it is pushed and not stored, and a visible one that is too large raises `MessageTooLarge`. A
        target of endpoints or addresses has no feed. With `at` (UNIX seconds) and an item, raises `UsageError`. Raises
        the exceptions of `Engine.send`, and `PartAbsent`.
        """
        self._engine.ensure_open()
        _ = self._facet
        now = self._clock.now()
        target = Target.parse(target) if isinstance(target, str) else target
        parts = [PushPart(notification=push)] if isinstance(push, Notification) else list(push)
        if item is not None and target.kind not in _FEEDS:
            raise UsageError("A target of endpoints has no feed: post to their user, or post without an item.")
        if item is not None and at is not None:
            raise UsageError("An item enters the feed when it is posted: leave out at, or post without an item.")
        if item is None and (fallback is not None or not parts):
            raise UsageError("A post without an item has something to push, and no fallback: give an item.")
        post = None if item is None else feed_post(item, fallback, self.settings, now)
        requests = post_requests(
            self._engine,
            self._platforms_of(app),
            app,
            target,
            post,
            parts,
            fallback=fallback,
            idempotency_key=idempotency_key,
            at=at,
            now=now,
        )
        puts = await self._put_batcher.accept(app, requests)
        self.hub.nudge()
        first, written = puts[0], puts[0].feed
        return Posted(
            item=None if written is None else written.item,
            item_id="" if written is None else written.id,
            receipt=Receipt(first.id, 0 if first.dropped else first.total, first.replayed, self._engine),
            parts=tuple(put.id for put in puts[1:] if put.id),
            replaced=written is not None and written.replaced,
        )

    def _platforms_of(self, app: str) -> Platforms:
        platforms = self._platforms.get(app)
        if platforms is None:
            types = {binding: kind for (owner, binding), kind in self._types.items() if owner == app}
            platforms = self._platforms[app] = Platforms(types)
        return platforms

    # -- subscriptions

    async def subscribe(
        self,
        app: str,
        user: str,
        *,
        device: str,
        binding: str | None = None,
        address: str | Mapping[str, Any] | None = None,
        receive: Receive = "push",
        platform: str = "",
        expires_in: float | None = None,
        former: str = "",
    ) -> tuple[Subscription, bool]:
        """Enter or renew the device's subscription; whether it was renewed. Without a binding it only polls.

        A device that was another user's presents that user's UNSID as `former`, or proves itself by its address. Raises
        `UsageError`, and `FeedError` 409 where the address is another user's and nothing proves that the device is here
        now.
        """
        self._engine.ensure_open()
        given.text("user", user)
        given.text("device_id", device, 256)
        if (binding is None) != (address is None):
            raise UsageError("binding and address go together: give both, or neither for a device that only polls.")
        if receive not in RECEIVES:
            raise UsageError(f"receive is one of {', '.join(RECEIVES)}.")
        longest = self.settings.subscription
        if expires_in is not None and not 0 < expires_in <= longest:
            raise UsageError(f"expires_in is in seconds, above 0 and at most {longest:g}.")
        now = self._clock.now()
        expires_at = now + (longest if expires_in is None else expires_in)
        registration = None
        if binding is not None and address is not None:
            platform = platform or _said(address) or platform_of(self._types.get((app, binding), binding))
            registration = self._engine.endpoints.registration(
                user=user, binding=binding, address=address, app=app, platform=platform, expires_at=expires_at
            )
        done = await self._facet.subscribe(
            SubscriptionRequest(
                app=app,
                user=user,
                device=device,
                registration=registration,
                platform=platform,
                receive=receive,
                expires_at=expires_at,
                unsid=secrets.token_urlsafe(24),
                former=former,
                most=self.settings.subscriptions_per_user,
            ),
            now,
        )
        if done.refused:
            raise FeedError(
                409,
                "address",
                "The address is another user's device: send that device's X-UNS-ID, or its whole push subscription as the browser gives it.",
            )
        self.hub.check(done.ended)
        return done.subscription, done.renewed

    async def subscriptions(self, app: str, user: str) -> list[Subscription]:
        """All of a user's, by id."""
        return await self._facet.subscriptions(app, user)

    async def subscription(self, app: str, user: str, id: int) -> Subscription:
        """One of a user's. Raises `FeedError` 404."""
        for each in await self.subscriptions(app, user):
            if each.id == id:
                return each
        raise FeedError(
            404,
            "subscription",
            "There is no such subscription of this user: it has ended or expired, or the id is another's. Subscribe again.",
        )

    async def device(self, app: str, user: str, unsid: str) -> Subscription | None:
        """The user's subscription of that UNSID, in any state."""
        found = await self._facet.subscription(app, unsid)
        return found if found is not None and found.user == user else None

    async def unsubscribe(self, app: str, user: str, id: int) -> None:
        """End one. Raises `FeedError` 404."""
        if not await self._facet.unsubscribe(app, user, id, self._clock.now()):
            raise FeedError(
                404,
                "subscription",
                "There is no such subscription of this user: it has ended or expired, or the id is another's. Subscribe again.",
            )
        self.hub.check([id])

    async def user_of_unsid(self, app: str, unsid: str, now: float | None = None) -> str | None:
        """The user whom a live UNSID of this app addresses; None for an unknown, expired or another app's."""
        found = await self._facet.subscription(app, unsid)
        return found.user if found is not None and found.live(self._clock.now() if now is None else now) else None

    def state_of(self, subscription: Subscription) -> str:
        """How a subscription stands now: active, expiring, expired or unreachable."""
        return subscription.state(self._clock.now(), self.settings.warning)

    # -- changing

    async def change(self, app: str, user: str, change: FeedChange) -> tuple[FeedItem, str]:
        """Change or delete an item, and tell the user's other devices, in one commit; the item and the cursor of the
        change.

        Raises `FeedError` 403 (the writer is no device of hers), 404 and 412.
        """
        written = await self._write(app, user, change)
        if written.problem == "stale":
            raise FeedError(412, "stale", "The item has changed since: read it again.")
        if written.item is None:
            raise no_item()
        return written.item, str(Cursor(await self._database(), written.seq))

    async def withdraw(self, app: str, user: str, id: str) -> FeedItem:
        """Take an item back that the app has posted to the user: from her feed, and out of every device's tray; the
        tombstone. Its queued pushes are stopped first. A broadcast item is taken from this user. Idempotent.
        Raises `FeedError` 404.
        """
        for push in await self._facet.pushes(app, user, id, self._clock.now()):
            with contextlib.suppress(NotFound):  # it had no recipient, or is forgotten by now
                await self._engine.cancel(push)
        item, _ = await self.change(app, user, FeedChange(item=id, delete=True, withdraw=True))
        return item

    async def change_all(self, app: str, user: str, bulk: FeedBulk) -> tuple[int, str]:
        """Change or delete every item that `bulk.query` finds now, with one signal to the user's other devices; how
        many, and the cursor.

        It is done in parts of `_SWEEP` items: one that fails leaves the parts before it. Raises `FeedError` 403.
        """
        head = (await self._facet.read(app, user, FeedQuery(after=2**62, limit=1), self._clock.now())).head
        query = replace(bulk.query, until=min(head, bulk.query.until), limit=_SWEEP, content=False)
        done = last = 0
        while True:
            written = await self._write(app, user, replace(bulk, query=query))
            done += written.count
            last = max(last, written.seq)
            if not written.more:
                return done, str(Cursor(await self._database(), last))
            query = replace(query, after=written.position)

    async def _write(self, app: str, user: str, change: FeedChange | FeedBulk) -> FeedWritten:
        _ = self._facet
        requests = change_requests(self._platforms_of(app), app, user, change, self._clock.now(), self.settings.burst)
        (written, *_) = [put.feed for put in await self._engine.accept(requests, app=app)]
        assert written is not None
        if written.problem == "device":
            raise FeedError(403, "device", "X-UNS-ID is no subscription of this user: subscribe again.")
        self.hub.nudge()
        return written

    async def erase_user(self, app: str, user: str) -> int:
        """Forget the user: directory, feed, subscriptions, queued work. How many endpoints there were."""
        done = await self._engine.erase_user(user, app=app)
        self.hub.nudge()
        return done

    # -- streams

    async def close_streams(self) -> None:
        """End every open event stream, and take no more: for a server that stops, which waits for its open requests
        first."""
        await self.hub.close_streams()


def _said(address: str | Mapping[str, Any]) -> str:
    """The platform that an FCM address may name."""
    found = address.get("platform") if isinstance(address, Mapping) else None
    return found if isinstance(found, str) else ""
