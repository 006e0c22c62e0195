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
    """A post that the service has stored. `total` is its deliveries, None while they are not known; `item` its place in the feed.

    `parts` are further notifications of the same post, for devices that want it in another form.
    """

    id: str
    total: int | None
    replayed: bool = False
    item: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotificationStatus:
    """How a notification stands, with the words of `fanout status --json`. Times are UNIX seconds."""

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
    """One delivery: `state` is `pending` or how it ended."""

    endpoint: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """One device in the directory. Its address is not told. Times are UNIX seconds."""

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
    """The result of a post in Microsoft Graph's shape: the resource as answered, whether it `replaced` one, and its
    address."""

    resource: Mapping[str, Any]
    location: str
    replaced: bool


@dataclass(frozen=True, slots=True)
class Me:
    """The app and the user of a token. `key` stands for this user of this app, always, and does not tell the user's id."""

    app: str
    key: str


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """One device of the user's. Renew it in the state `expiring` or `expired`; `unreachable` wants a new address. Times: UNIX seconds."""

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
    """An item of the feed, as the user left it. A deleted one has no content. Times are UNIX seconds, `display_ttl` seconds."""

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
    """Some items. Go on from `cursor`: at once where there is `more`, otherwise when something has changed."""

    items: tuple[Item, ...]
    cursor: str
    more: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """An item after a change, and the cursor of that change."""

    item: Item
    cursor: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items are unread, and how many have come since the user last looked."""

    unread: int
    unseen: int


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One message of the stream of changes.

    `change` has an `item`; `counts` has `data` with `unread` and `unseen`; `resync` asks to read the feed anew without a cursor; `subscription` says that this device's is expiring
    or has expired; `unauthorized` comes before the stream ends because its token has. `cursor` is from where to go on.
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
