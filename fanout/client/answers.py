"""The records of the service's answers, and the stream of its changes taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from fanout.client.wire import answered

__all__ = [
    "Action", "Changed", "Counts", "DeliveryInfo", "EndpointInfo", "FeedEvent", "FeedPage", "GraphAccepted", "Item", "Lines", "Me",
    "NotificationStatus", "Posted", "SubscriptionInfo",
]  # fmt: skip

Action = Literal["none", "activated", "dismissed", "snoozed"]


@dataclass(frozen=True, slots=True)
class Posted:
    """A post that the service has stored.

    Attributes:
        id: The notification's id.
        total: The number of its deliveries; None while that is not known.
        replayed: Whether the idempotency key was known, so that nothing new was stored.
        item: The id of the item in the feed; None without one.
        parts: Further notifications of the same post, for devices that want it in another form.
    """

    id: str
    total: int | None
    replayed: bool = False
    item: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotificationStatus:
    """The state of a notification, with the words of `fanout status --json`. Times are UNIX seconds.

    Attributes:
        id, state: The notification's id, and its state.
        total: The number of its deliveries; None while that is not known.
        counts: The numbers of deliveries that have ended, by state, and of those that have not (`pending`).
        pending_by_reason: The numbers of deliveries that have not ended, by waiting reason.
        attempts: The number of attempts that reached for the network.
        eta_s: The seconds that the rest will take, by the present rate; None where that is not known.
        reasons: For each final state the numbers by the reason.
        shortened: The bindings whose gateway takes the notification with less text only.
        accepted_at, finished_at, oldest_pending_at: The time of acceptance, the end of the last delivery (None before),
            and the due time while it has not ended (else None).
    """

    id: str
    state: str
    total: int | None
    counts: Mapping[str, int]
    pending_by_reason: Mapping[str, int]
    attempts: int
    accepted_at: float
    finished_at: float | None
    oldest_pending_at: float | None
    eta_s: float | None
    reasons: Mapping[str, Mapping[str, int]]
    shortened: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeliveryInfo:
    """One delivery.

    Attributes:
        endpoint: The endpoint's id.
        state, reason: `pending` or the final state, and the reason.
    """

    endpoint: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """One device in the directory. Its address is not told. Times are UNIX seconds.

    Attributes:
        id, user, binding, platform, tags: The endpoint's id, and the values with which it was registered.
        kind, group: The kind of its address, and the group of connections that serves it.
        state, reason, state_at: The state, why, and since when.
        generation: A number that grows with each registration.
        registered_at, expires_at: The time of the last registration, and its end; None for no end.
    """

    id: int
    user: str
    binding: str
    kind: str
    group: str
    platform: str
    tags: tuple[str, ...]
    state: str
    reason: str
    generation: int
    registered_at: float
    expires_at: float | None
    state_at: float | None


@dataclass(frozen=True, slots=True)
class GraphAccepted:
    """The result of a post in Microsoft Graph's shape.

    Attributes:
        resource: The resource, as answered.
        location: The address of the resource.
        replaced: Whether it replaced an earlier one.
    """

    resource: Mapping[str, Any]
    location: str
    replaced: bool


@dataclass(frozen=True, slots=True)
class Me:
    """The app and the user of a token.

    Attributes:
        app: The app.
        key: A text that always stands for this user of this app, and does not tell the user's id.
    """

    app: str
    key: str


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """One device of a user. Renew it in the state `expiring` or `expired`; `unreachable` wants a new address. Times are
    UNIX seconds.

    Attributes:
        id: The subscription's number.
        unsid: The user notification subscription id, by which the device calls and an app posts to it.
        device_id, binding, platform, receive: The values with which it was made; `binding` is None for a device that
            gets no pushes.
        state: The state, as above.
        created_at, renewed_at, expires_at: The times of the first and of the last request, and of its end.
    """

    id: int
    unsid: str
    device_id: str
    binding: str | None
    platform: str
    receive: Literal["push", "signal", "none"]
    state: Literal["active", "expiring", "expired", "unreachable"]
    created_at: float
    renewed_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the feed, as the user left it. Times are UNIX seconds.

    Attributes:
        id, external_id: The item's id, and its sender's own; None without one.
        status: `active`, or `deleted`: then without content.
        read, action: Whether the user has read it, and the user's action.
        group, priority: The group and the priority, as it was posted.
        created_at, modified_at, expires_at: The times of the post, of the last change (None without one), and of its
            end.
        display_ttl: The seconds for which the platform's tray shows it; None where the post names none.
        broadcast: Whether the item is of a topic or of all.
        content: The values that were posted.
        etag: The text for `if_match`.
    """

    id: str
    external_id: str | None
    status: Literal["active", "deleted"]
    read: bool
    action: Action
    group: str | None
    priority: Literal["none", "low", "high"]
    created_at: float
    modified_at: float | None
    expires_at: float
    display_ttl: int | None
    broadcast: bool
    content: Mapping[str, Any] | None
    etag: str


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Some items.

    Attributes:
        items: The items.
        cursor: The position from which to go on.
        more: Whether to go on at once; otherwise when something has changed.
    """

    items: tuple[Item, ...]
    cursor: str
    more: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """The result of a change.

    Attributes:
        item: The item afterwards.
        cursor: The cursor of the change.
    """

    item: Item
    cursor: str


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of items that want attention.

    Attributes:
        unread: The items that are unread.
        unseen: The items that have come since the user last looked.
    """

    unread: int
    unseen: int


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One message of the stream of changes.

    Attributes:
        kind: `change`, which has an `item`; `counts`, whose `data` has `unread` and `unseen`; `resync`, which asks to
            read the feed anew without a cursor; `subscription`: the device's is expiring or has expired;
            `unauthorized`: the stream ends because its token has.
        cursor: The position from which to go on.
        item: The item, of a `change`.
        data: The values of the message.
    """

    kind: str
    cursor: str
    item: Item | None = None
    data: Mapping[str, Any] | None = None


class Lines:
    """Server-sent events out of their lines (HTML standard, section 9.2.6)."""

    def __init__(self) -> None:
        self._cursor = ""
        self._clear()

    def _clear(self) -> None:
        self._kind = "message"
        self._data: list[str] = []

    def line(self, text: str) -> FeedEvent | None:
        """One line; the event, if it was its end."""
        if text:
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._kind = value
            elif name == "data":
                self._data.append(value)
            elif name == "id":
                self._cursor = value
            return None
        kind, data = self._kind, self._data
        self._clear()
        if not data:
            return None
        said = orjson.loads("\n".join(data))
        return FeedEvent(kind, self._cursor, answered(Item, said) if kind == "change" else None, said)
