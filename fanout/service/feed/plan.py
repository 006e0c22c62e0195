"""The pushes after a post or a change: the parts, and the audience of each. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from fanout.core.feed import CURSOR_SLOT, ITEM_SLOT, Audience, FeedChange, Priority, Receive
from fanout.core.model import Notification, stamped
from fanout.errors import MessageTooLarge, UsageError

__all__ = [
    "FEED_KEY",
    "PLATFORMS",
    "SIGNAL_TTL",
    "Fallback",
    "NewItem",
    "Platforms",
    "PushPart",
    "burst_key",
    "change_key",
    "change_notification",
    "part_key",
    "platform_of",
    "signal",
    "signal_key",
    "too_large",
    "with_feed",
]

FEED_KEY = "feed"
"""Where a push's data say which item it is about, and up to which cursor the reader would know everything."""

SIGNAL_TTL = 86_400.0
"""Seconds for which a signal or a change is worth delivering: after that the device finds it at its next fetch."""

PLATFORMS = ("windows", "ios", "android", "webpush")
_ALIASES = {
    "windows": frozenset(("windows", "wns")),
    "ios": frozenset(("ios", "apns")),
    "android": frozenset(("android", "fcm")),
    "webpush": frozenset(("webpush", "web")),
}
_KEPT = 256
_OF_TYPE = {"apns": "ios", "fcm": "android", "wns": "windows", "webpush": "webpush"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """The item that enters the feed. `content` is plain JSON that clients get back as it is.

    `expires_at` is UNIX seconds, None for the default; `display_ttl` seconds. `external_id` is the sender's own id: an
    active item of the same target with that id is replaced.
    """

    content: Mapping[str, Any]
    external_id: str | None = None
    expires_at: float | None = None
    display_ttl: float | None = None
    group: str | None = None
    priority: Priority = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPart:
    """One form of a post and the platforms that get it (words of `PLATFORMS`, or a transport's name); None for all.

    With `inverse` all platforms but those get it. With `collapse_key` a later part of that key takes its place in the
    queue, and the gateway is told no key: FCM keeps the messages of four keys for a device that is offline, and drops
    the rest.
    """

    notification: Notification
    collapse_key: str | None = None
    platforms: frozenset[str] | None = None
    inverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The alert that an iOS device shows which has not fetched the item `delay` seconds after it was posted."""

    delay: float
    title: str
    body: str | None = None


class Platforms:
    """Which binding of an app stands for which platform. `types` maps a binding's name to its transport's."""

    def __init__(self, types: Mapping[str, str] | None = None) -> None:
        self._of = {binding: platform_of(kind) for binding, kind in (types or {}).items()}
        self._made: dict[tuple[Any, ...], Audience] = {}

    def audience(
        self,
        platforms: frozenset[str] | None,
        receive: frozenset[Receive],
        *,
        inverse: bool = False,
        unseen: bool = False,
    ) -> Audience:
        """Endpoints of these platforms, or with `inverse` of all others."""
        asked = (platforms, receive, inverse, unseen)
        made = self._made.get(asked)
        if made is None:
            made = self._audience(platforms, receive, inverse, unseen)
            if len(self._made) < _KEPT:
                self._made[asked] = made
        return made

    def _audience(
        self, platforms: frozenset[str] | None, receive: frozenset[Receive], inverse: bool, unseen: bool
    ) -> Audience:
        if platforms is None:
            return Audience(receive=receive, unseen=unseen)
        wanted = frozenset(platform.lower() for platform in platforms)
        names = wanted.union(*(_ALIASES.get(platform, frozenset()) for platform in wanted))
        bindings = frozenset(binding for binding, platform in self._of.items() if platform in wanted)
        return Audience(receive=receive, platforms=names, bindings=bindings, inverse=inverse, unseen=unseen)


def platform_of(transport: str) -> str:
    """The platform that a transport of that name reaches, unless the client says otherwise."""
    return _OF_TYPE.get(transport, transport)


def with_feed(notification: Notification) -> Notification:
    """The notification, whose data also say which item it is and up to which cursor it tells. Raises `UsageError`."""
    if FEED_KEY in notification.data:
        raise UsageError(f"data has the key {FEED_KEY!r}, which says where the notification is in the feed: rename it.")
    feed = {"cursor": CURSOR_SLOT, "item": ITEM_SLOT, "change": "posted"}
    # Not by `replace`, which would check all of the content a second time.
    made = stamped(notification, id="", accepted_at=0.0, expires_at=math.inf)
    object.__setattr__(made, "data", {**notification.data, FEED_KEY: feed})
    return made


def signal() -> Notification:
    """A bare signal: come and fetch, up to this cursor. It holds nothing of the content to fetch."""
    return Notification(data={FEED_KEY: {"cursor": CURSOR_SLOT}}, ttl=SIGNAL_TTL, collapse_key="feed")


def change_notification(change: FeedChange) -> Notification:
    """A change as data, for a device that has the item: so that its copy changes or leaves the tray without a fetch.

    No collapse key goes to the gateway: FCM keeps the messages of four keys for a device that is offline, and drops the
    rest.
    """
    said: dict[str, Any] = {"cursor": CURSOR_SLOT, "item": ITEM_SLOT}
    said["change"] = "deleted" if change.delete else "updated"
    if change.read is not None and not change.delete:
        said["read"] = change.read
    if change.action is not None and not change.delete:
        said["action"] = change.action
    return Notification(data={FEED_KEY: said}, ttl=SIGNAL_TTL)


def change_key(change: FeedChange) -> str:
    """The key by which pushes collapse in the queue: a later push by the same writer that names the same properties
    says all of it again.

    The writer is part of it because it is left out of the audience: a push that another device wrote is for others, and
    must not take this one's place.
    """
    named = "d" if change.delete else f"{'r' * (change.read is not None)}{'a' * (change.action is not None)}"
    return f"feed:{_short(change.item)}:{named}:{_short(change.writer)}"


def burst_key(audience: Audience, writer: str) -> str:
    """The key by which changes are gathered for a while: all that this writer changes, for these devices."""
    return f"feed:burst:{_fingerprint(audience)}:{_short(writer)}"


def signal_key(audience: Audience, writer: str = "") -> str:
    """The key by which signals collapse in the queue: a later signal to the same devices says all of it again."""
    return f"feed:signal:{_fingerprint(audience)}:{_short(writer)}"


@lru_cache(maxsize=1024)
def _fingerprint(audience: Audience) -> str:
    return _short(repr(audience.dump()))


def part_key(key: str | None, number: int) -> str | None:
    """The collapse key of the `number`-th part of a post, in the queue: parts of one post do not take each other's
    place."""
    return None if key is None else f"{key}\x1f{number}"


def too_large(refusals: Iterable[Exception]) -> bool:
    """Whether some binding refuses a part for its size, and none for anything else."""
    found = list(refusals)
    return bool(found) and all(isinstance(error, MessageTooLarge) for error in found)


def _short(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest() if text else "-"
