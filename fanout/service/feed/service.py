"""The feed as the service's routes use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fanout.config import Settings
from fanout.core.feed import FeedChange, FeedItem, ItemAction, Receive, Subscription
from fanout.core.model import Notification, Target
from fanout.engine import Engine
from fanout.engine.receipt import Receipt
from fanout.service.feed.plan import Fallback, NewItem, PushPart
from fanout.service.feed.settings import FeedSettings

if TYPE_CHECKING:
    from fastapi import APIRouter

    from fanout.service.auth import Authenticator

__all__ = ["FeedService", "Posted", "Read"]


@dataclass(frozen=True, slots=True)
class Posted:
    """A post that was accepted durably, item and pushes in one commit.

    `item` is None where nothing was entered into the feed, or where each of many users has an item of her own. `item_id` names it in
    any case, "" where there is none. `receipt` follows the pushes with content; `parts` are the ids of the other notifications
    of the post (other forms, bare signals, the fallback). `replaced`: an item of that external id was replaced. A replayed post (same idempotency key) has `receipt.replayed`.
    """

    item: FeedItem | None
    item_id: str
    receipt: Receipt
    parts: tuple[str, ...] = ()
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """A page of the feed. `cursor` is where to go on: at once where there is `more`, else when something has changed."""

    items: tuple[FeedItem, ...]
    cursor: str
    more: bool


class FeedService:
    """Subscriptions and the feed, for one engine. Made once per app; `async with` starts and ends its streams.

    `settings` tells the transport of each binding; without it a binding is taken for the transport of its name.
    """

    def __init__(self, engine: Engine, settings: Settings | None = None, feed: FeedSettings | None = None) -> None: ...

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

        `push` is one notification for every platform, or one per group of platforms; nothing for none. Subscriptions that asked
        for signals get a bare one. A raw push that is too large for a gateway goes to everybody as a bare signal; a visible one raises
        `MessageTooLarge`. Without `item` it is pushed and not stored. A target of endpoints or addresses has no feed. With
        `at` (UNIX seconds) and an item, raises `UsageError`. Raises what `Engine.send` raises.
        """
        raise NotImplementedError

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
    ) -> tuple[Subscription, bool]:
        """Enter or renew the device's subscription; whether it was renewed. Without a binding it only polls. Raises `UsageError`."""
        raise NotImplementedError

    async def subscriptions(self, app: str, user: str) -> list[Subscription]:
        """All of a user's, by id."""
        raise NotImplementedError

    async def unsubscribe(self, app: str, user: str, id: int) -> None:
        """End one. Raises `FeedError` 404."""
        raise NotImplementedError

    async def user_of_unsid(self, app: str, unsid: str, now: float | None = None) -> str | None:
        """Whom a live UNSID of this app addresses; None for an unknown, expired or another app's."""
        raise NotImplementedError

    # -- the feed

    async def list(
        self,
        app: str,
        user: str,
        *,
        cursor: str | None = None,
        order: Literal["changed", "newest"] = "changed",
        unread: bool | None = None,
        action: ItemAction | None = None,
        status: Literal["active", "deleted", "any"] | None = None,
        limit: int = 100,
        unsid: str = "",
    ) -> Read:
        """A page of the feed: from the beginning, or with a `cursor` what has changed since (tombstones too), or the page after one
        in the order `newest`. `unsid` is the device that reads. Raises `UsageError`, and `FeedError` 410 for a cursor that is too old.
        """
        raise NotImplementedError

    async def get(self, app: str, user: str, id: str, *, unsid: str = "") -> FeedItem:
        """One item, by its id or its sender's. Raises `FeedError` 404."""
        raise NotImplementedError

    async def change(self, app: str, user: str, change: FeedChange) -> tuple[FeedItem, str]:
        """Change or delete an item, and tell the user's other devices, in one commit; the item and the cursor of the change.

        Raises `FeedError` 403 (the writer is no device of hers), 404 and 412.
        """
        raise NotImplementedError

    async def erase_user(self, app: str, user: str) -> int:
        """Forget the user: directory, feed, subscriptions, queued work. How many endpoints there were."""
        raise NotImplementedError

    def routers(self, authenticator: Authenticator) -> list[APIRouter]:
        """The routes under `/v1/me`. They raise `AuthError`, `FeedError` and `UsageError` for the app's handlers to answer."""
        raise NotImplementedError

    async def close_streams(self) -> None:
        """End every open event stream, for a server that stops: it waits for its open requests first."""
        raise NotImplementedError
