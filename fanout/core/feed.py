"""The feed as values: posts, an item's state for one user, the effect of a change, and subscriptions. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

from fanout.core.address import Address
from fanout.core.cursor import CURSOR_LENGTH
from fanout.core.endpoint import Registration

__all__ = [
    "ACTIONS",
    "CURSOR_SLOT",
    "ITEM_SLOT",
    "PUSHES",
    "RECEIVES",
    "SHARED",
    "Audience",
    "FeedBulk",
    "FeedChange",
    "FeedItem",
    "FeedPage",
    "FeedPost",
    "FeedQuery",
    "FeedWritten",
    "ItemAction",
    "Priority",
    "Receive",
    "Subscribed",
    "Subscription",
    "SubscriptionRequest",
    "Touched",
    "change_item",
    "post_digest",
    "proves",
    "user_digest",
]

ItemAction: TypeAlias = Literal["none", "activated", "dismissed", "snoozed"]
"""The user's action on an item (Microsoft Graph: `userActionState`)."""
Priority: TypeAlias = Literal["none", "low", "high"]
Receive: TypeAlias = Literal["push", "signal", "none"]
"""The pushes that a subscription wants: with their content, bare signals to come and fetch, or none."""

ACTIONS: tuple[ItemAction, ...] = ("none", "activated", "dismissed", "snoozed")
RECEIVES: tuple[Receive, ...] = ("push", "signal", "none")

CURSOR_SLOT = "~fanout-cursor-goes-here~~"
"""Stands in a notification's content where storage puts the cursor of the feed write it belongs to; of the same
length."""
ITEM_SLOT = "~fanout-item-id-of-36-letters-here~~"
"""Stands where storage puts the id of the item that was written; of the same length."""

PUSHES = 16
"""Notifications that an item remembers to have been pushed by."""
SHARED = 20
"""Broadcast items that `Touched` holds at most."""

assert len(CURSOR_SLOT) == CURSOR_LENGTH
assert len(ITEM_SLOT) == 36


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPost:
    """An item to be entered into the feed of its submission's target, which is a user, users, a topic, or all.

    `content` is JSON for clients, which storage does not look into. `external_id` is the sender's own: an active item
    of the same target and external id is replaced, unless nothing is new (`post_digest`, and no idempotency key): then
    its user's changes stay, deleting it too, only its expiry moves, and nothing of the post is pushed. Of many users
    that holds where nothing is new to any. `display_until` is when it leaves the platform's tray, `expires_at` when it
    leaves the feed (UNIX seconds). `fallback_at`: until then it is remembered which devices have fetched it.
    """

    content: bytes
    expires_at: float
    external_id: str | None = None
    group: str | None = None
    priority: Priority = "none"
    display_until: float | None = None
    fallback_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedChange:
    """One user's change to one of the user's items. A property that is None is left as it is; `delete` leaves a
    tombstone.

    `item` is the item's id or its sender's. `if_match` (an item's `seq`): only if it has not changed since. `writer` is
    the UNSID of the device that writes, which is told nothing; "" where it is not known. `withdraw`, with `delete`: by
    the app that posted it; a tombstone of that is none that a later post repeats.
    """

    item: str
    read: bool | None = None
    action: ItemAction | None = None
    delete: bool = False
    if_match: int | None = None
    writer: str = ""
    withdraw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedItem:
    """One item as one user sees it. Times are UNIX seconds.

    `number` grows with each item and orders them by age. `seq` is the number of its last change, for this user: it
    orders changes, and ETags are made of it. `modified_at` is None until the first change after it was posted. A
    `deleted` one is a tombstone, without content. `writer` is the subscription that changed it last, 0 where it is not
    known.
    """

    id: str
    number: int
    seq: int
    external_id: str | None
    group: str | None
    priority: Priority
    content: bytes
    created_at: float
    modified_at: float | None
    expires_at: float
    display_until: float | None
    fallback_at: float | None
    read: bool = False
    action: ItemAction = "none"
    deleted: bool = False
    broadcast: bool = False
    writer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedWritten:
    """The result of a submission's feed write. With a `problem` nothing of its batch was stored.

    `item` is None for a post to many users: each user has one, of the same `id`. `seq` is the change's number.
    `replaced`: an earlier item of that external id was. `changed` is False where a change found everything as it wants
    it: then no number was used, and no client is to be told; and of a post in which nothing is new, with the item as it
    stands. Of a bulk, `count` items were changed, the last under `seq`; with `more` it goes on after `position`.
    `problem`: `missing` (no such item), `stale` (`if_match` is another), `device` (the writer is no subscription of
    this user).
    """

    item: FeedItem | None = None
    id: str = ""
    seq: int = 0
    replaced: bool = False
    changed: bool = True
    count: int = 0
    more: bool = False
    position: int = 0
    problem: Literal["", "missing", "stale", "device"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Which of a target's endpoints a submission is for. An endpoint that came without a subscription receives pushes.

    `platforms`: only these (lower case), or with `inverse` all but these; None for all. `bindings` are those that stand
    for one of these platforms where an endpoint names none. `unseen`: only those whose subscription has not fetched the
    item of the feed post that it goes with, looked up when it is due, and none once the item was read, acted on,
    deleted, replaced or has expired. `exclude` is an endpoint that is left out: storage puts the writer's there.
    """

    receive: frozenset[Receive] = frozenset(("push",))
    platforms: frozenset[str] | None = None
    bindings: frozenset[str] = frozenset()
    inverse: bool = False
    unseen: bool = False
    exclude: int = 0

    def dump(self) -> list[Any]:
        """A list that JSON can hold; `load` takes it back."""
        platforms = None if self.platforms is None else sorted(self.platforms)
        return [sorted(self.receive), platforms, sorted(self.bindings), self.inverse, self.unseen, self.exclude]

    @classmethod
    def load(cls, values: Sequence[Any]) -> Audience:
        """The inverse of `dump`.

        Args:
            values: The values that `dump` returned.

        Returns:
            The audience.
        """
        receive, platforms, bindings, inverse, unseen, exclude = values
        return cls(
            receive=frozenset(receive),
            platforms=None if platforms is None else frozenset(platforms),
            bindings=frozenset(bindings),
            inverse=bool(inverse),
            unseen=bool(unseen),
            exclude=exclude,
        )

    def admits(self, receive: str, platform: str, binding: str) -> bool:
        """Whether an endpoint is meant.

        Args:
            receive: The content that the endpoint wants: `push`, `signal` or `none`.
            platform: The platform of the endpoint, such as `ios`; empty where it said none.
            binding: The name of its binding.

        Returns:
            Whether it is meant.
        """
        return receive in self.receive and self.fits(platform, binding)

    def fits(self, platform: str, binding: str) -> bool:
        """Whether an endpoint is meant, without regard to the kinds that it wants to receive.

        Args:
            platform: The platform of the endpoint, such as `ios`; empty where it said none.
            binding: The name of its binding.

        Returns:
            Whether its platform is meant.
        """
        if self.platforms is None:
            return True
        named = platform.lower() in self.platforms if platform else binding in self.bindings
        return named is not self.inverse


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedQuery:
    """Which items to read.

    `after` is a `seq`: the changes since, oldest first, tombstones too where `status` allows them. `newest_before` is a
    `number`: items older than that, newest first (None: in the order of change). `until` is a `seq`: nothing that has
    changed after it. `unread`, `action`, `status`, `group` and `ids` (items' own, or their senders') leave out items
    that do not fit; None is "any". Without `content` the items are read without it.
    """

    after: int = 0
    until: int = 2**62
    newest_before: int | None = None
    unread: bool | None = None
    action: ItemAction | None = None
    status: Literal["active", "deleted"] | None = "active"
    group: str | None = None
    ids: tuple[str, ...] | None = None
    content: bool = True
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedBulk:
    """One user's change to every item of hers that `query` finds: `FeedChange` many times, each item with a number of
    its own.

    At most `query.limit` items are looked at, in the order of change from `query.after` on.
    """

    query: FeedQuery
    read: bool | None = None
    action: ItemAction | None = None
    delete: bool = False
    writer: str = ""

    def one(self, item: FeedItem) -> FeedChange:
        """The change for this item."""
        return FeedChange(item=item.id, read=self.read, action=self.action, delete=self.delete, writer=self.writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPage:
    """The result of a query. `seq` is up to where the reader now knows everything, with `more` still to come.

    `floor`: a reader whose position is below it may have missed a deletion, and must begin anew. `head` is the last
    change of the database. `topics` are those of the user's devices.
    """

    items: tuple[FeedItem, ...]
    seq: int
    more: bool
    head: int
    floor: int
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """The users whose feeds have changed after a `seq`, and the last change of the database.

    `users` holds (app, user); the user "" stands for all users of that app. `shared` are the items of all users among
    it, as they are without any user's own state of them: (app, topic or None, item), in the order of change; None where
    there are over `SHARED`. `erased` are (app, `user_digest`).
    """

    head: int
    users: frozenset[tuple[str, str]] = frozenset()
    erased: frozenset[tuple[str, bytes]] = frozenset()
    shared: tuple[tuple[str, str | None, FeedItem], ...] | None = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRequest:
    """One device of a user wants the feed. `registration` is its address, None for one that only polls.

    `device` is stable for an installation of the client, and names it among the user's own: another user's device of
    that name is another device. `unsid` is used where the device is new to this user; `former` is one that it presents,
    from the user that had it before. A user has at most `most` subscriptions (0: any number). Times: UNIX seconds.
    """

    app: str
    user: str
    device: str
    registration: Registration | None
    platform: str
    receive: Receive
    expires_at: float
    unsid: str
    most: int = 0
    former: str = field(default="", repr=False)


def crowded_out(id: int, user: str, device: str) -> tuple[str, dict[str, Any]]:
    """Kind and data of the event for a subscription that ended because its user had too many."""
    return "subscription.ended", {"subscription": id, "user": user, "device": device, "reason": "more than the limit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """An endpoint as its client sees it. `endpoint` is 0 for one that only polls; `endpoint_state` is the directory's
    word, or ""."""

    id: int
    unsid: str = field(repr=False)
    app: str
    user: str
    device: str
    binding: str
    platform: str
    receive: Receive
    created_at: float
    renewed_at: float
    expires_at: float
    endpoint: int = 0
    endpoint_state: str = ""

    def live(self, now: float) -> bool:
        """Whether it addresses its user: not expired, and its address neither removed nor another user's by now.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            Whether it is live.
        """
        return self.expires_at > now and self.endpoint_state not in ("removed", "replaced")

    def state(self, now: float, warning: float) -> Literal["active", "expiring", "expired", "unreachable"]:
        """The state that the client sees.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.
            warning: The last seconds of its time, in which it is `expiring`.

        Returns:
            `active`, `expiring` or `expired`; `unreachable` where the gateway said that the address is dead, or it was
            taken away: the device renews it with a new one.
        """
        if self.expires_at <= now:
            return "expired"
        if self.endpoint_state not in ("", "active"):
            return "unreachable"
        return "expiring" if self.expires_at - now <= warning else "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """The result of a request: the subscription, whether it was `renewed`, and the ids of those that ended because of
    it.

    `refused`: the address is another user's, and nothing proved that the device is here now. Nothing was changed, and
    `subscription` is the requested one, with the id 0.
    """

    subscription: Subscription
    renewed: bool
    ended: tuple[int, ...] = ()
    refused: bool = False

    @classmethod
    def refusal(cls, wanted: SubscriptionRequest, now: float) -> Subscribed:
        """The answer to a request for another user's address without proof.

        Args:
            wanted: The request that is refused.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The answer, with `refused`.
        """
        asked = Subscription(
            id=0,
            unsid="",
            app=wanted.app,
            user=wanted.user,
            device=wanted.device,
            binding="",
            platform=wanted.platform,
            receive=wanted.receive,
            created_at=now,
            renewed_at=now,
            expires_at=wanted.expires_at,
        )
        return cls(subscription=asked, renewed=False, refused=True)


def proves(held: Address, presented: Address) -> bool:
    """Whether `presented` proves that its sender is the device of the address `held`, which is the same by its digest.

    An address of APNs, FCM or WNS is a secret of the device, and is its own proof. Of a Web Push subscription the URL
    is no secret of the browser's alone; its keys are (RFC 8291, section 3.2), and are part of `value`.
    """
    return hmac.compare_digest(held.value.encode(), presented.value.encode())


def change_item(item: FeedItem, change: FeedChange, *, seq: int, now: float, writer: int) -> FeedItem:
    """The item after the change, which gets the number `seq`; the same object where nothing is different.

    The last writer wins, property by property: a property that a change does not name stays as another device left it.
    """
    if change.delete:
        return replace(item, content=b"", deleted=True, modified_at=now, seq=seq, writer=writer)
    read = item.read if change.read is None else change.read
    action = item.action if change.action is None else change.action
    if (read, action) == (item.read, item.action):
        return item
    return replace(item, read=read, action=action, modified_at=now, seq=seq, writer=writer)


def post_digest(post: FeedPost) -> str:
    """The digest by which a post equals an earlier one of its external id: content, group and priority. 32 hexadecimal
    digits."""
    parts = (post.group or "", post.priority, "" if post.group is None else "g")
    data = b"".join(b"%d:%b" % (len(each), each) for each in [part.encode("utf-8", "surrogatepass") for part in parts])
    return blake2b(data + post.content, digest_size=16, person=b"fanout-post").hexdigest()


def user_digest(user: str) -> bytes:
    """The remnant of an erased user: 16 bytes by which readers with an old cursor are told to begin anew."""
    return blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16, person=b"fanout-erased").digest()
