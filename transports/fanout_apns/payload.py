"""A notification in Apple's form: the JSON payload and the values of its headers. Pure.

The rules are Apple's "Sending notification requests to APNs" and "Generating a remote notification".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from fanout.plugin import InvalidMessage, Message, MessageTooLarge, Notification, compact

__all__ = [
    "COLLAPSE_LIMIT",
    "LIMIT",
    "RESERVED",
    "SUFFIXES",
    "VOIP_LIMIT",
    "ApnsMessage",
    "Headers",
    "collapse_id",
    "encode",
]

LIMIT = 4096
VOIP_LIMIT = 5120
"""Bytes of payload, for VoIP pushes and for all others."""

COLLAPSE_LIMIT = 64
"""Bytes of `apns-collapse-id`."""

SUFFIXES: dict[str, str] = {
    "alert": "",
    "background": "",
    "complication": ".complication",
    "controls": ".push-type.controls",
    "fileprovider": ".pushkit.fileprovider",
    "liveactivity": ".push-type.liveactivity",
    "location": ".location-query",
    "mdm": "",
    "pushtotalk": ".voip-ptt",
    "voip": ".voip",
    "widgets": ".push-type.widgets",
}
"""The eleven push types, and the suffix of each behind the app's bundle id, which makes its topic."""

_PRIORITIES = {"urgent": "10", "normal": "10", "bulk": "5"}
"""10 is immediate and 5 considers the device's battery: bulk messages can wait for it."""

_FRIENDLY = {
    "push_type": "apns-push-type",
    "topic": "apns-topic",
    "priority": "apns-priority",
    "collapse_id": "apns-collapse-id",
    "expiration": "apns-expiration",
}
_OWN = ("apns-id", "authorization")
_TEXTS, _TEXTS_OF = ("title", "subtitle", "body"), attrgetter("title", "subtitle", "body")
_REST = ("badge", "sound", "category", "thread-id")
_REST_OF = attrgetter("badge", "sound", "category", "thread")
_NO_REST = (None,) * len(_REST)
_SHOWN = ("alert", "badge", "sound")
RESERVED = ("aps", "fanout")
"""Keys of the payload that are not the app's."""


class Headers(NamedTuple):
    """The request headers that a notification decides. `expiration` is UNIX seconds, 0 for now or never, or None for
    Apple's choice.

    `own_topic` says that the topic is the binding's, so that an answer about the topic speaks of the configuration.
    """

    push_type: str
    topic: str
    priority: int
    expiration: int | None
    collapse_id: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    own_topic: bool = True


class ApnsMessage(Message):
    """A notification for one binding: its payload, its headers, and their encoded form for the client."""

    __slots__ = ("fields", "head", "headers", "payload")

    def __init__(self, payload: bytes, headers: Headers) -> None:
        super().__init__(len(payload), headers.topic)
        self.payload = payload
        self.headers = headers
        self.head: Any = None
        self.fields = b""


def encode(notification: Notification, topic: str, overrides: Mapping[str, Any]) -> ApnsMessage:
    """The message of `notification` for the app of bundle id `topic` ("" where a certificate says it).

    `overrides` is the part of the notification for this binding: `aps` is merged into the `aps` dictionary and
    `payload` into the whole, both as they are; `push_type`, `topic`, `priority`, `collapse_id` and `expiration`, or
    `headers` with Apple's names, replace ours. Raises `InvalidMessage`, and `MessageTooLarge` above
    Apple's limit.
    """
    given = _given_headers(overrides) if overrides else {}
    aps_override = _table(overrides, "aps")
    push_type = str(given.pop("apns-push-type", "")) or _push_type(notification, aps_override)
    if push_type not in SUFFIXES:
        raise InvalidMessage(f"push_type is {push_type!r}: APNs knows {', '.join(SUFFIXES)}.")
    content = _content(notification, push_type, aps_override, _table(overrides, "payload"))
    expiration = _expiration(notification, given.pop("apns-expiration", None))
    headers = _headers(push_type, topic, notification.lane, notification.collapse_key, expiration, tuple(given.items()))
    try:
        payload = compact(orjson.dumps(content))
    except TypeError as error:
        raise InvalidMessage(f"data and overrides for APNs must be plain JSON: {error}.") from None
    limit = VOIP_LIMIT if push_type == "voip" else LIMIT
    if len(payload) > limit:
        raise MessageTooLarge(
            f"The payload for APNs has {len(payload)} bytes and may have {limit}: shorten the body or the data, "
            "or send a link to the rest.",
            size=len(payload),
            limit=limit,
        )
    return ApnsMessage(payload, headers)


def collapse_id(key: str) -> str:
    """`key` where Apple takes it (printable ASCII, at most 64 bytes), else a hash of it, the same everywhere."""
    if key.isascii() and key.isprintable() and key == key.strip() and len(key) <= COLLAPSE_LIMIT:
        return key
    return blake2b(key.encode(), digest_size=24).hexdigest()


def _push_type(notification: Notification, aps: Mapping[str, Any]) -> str:
    shows = notification.visible or notification.badge is not None or notification.sound is not None
    return "alert" if shows or not aps.keys().isdisjoint(_SHOWN) else "background"


def _content(
    notification: Notification, push_type: str, aps_override: Mapping[str, Any], payload_override: Mapping[str, Any]
) -> dict[str, Any]:
    for name in RESERVED:
        if name in notification.data:
            raise InvalidMessage(f"data has the key {name!r}, which stands for something else in APNs: rename it.")
    if "fanout" in payload_override or "aps" in payload_override:
        raise InvalidMessage("payload may replace anything but aps and fanout: write aps beside it, not inside.")
    aps = _aps(notification, push_type)
    if aps_override:
        alert = aps.get("alert")
        aps.update(aps_override)
        if isinstance(alert, dict) and isinstance(aps_override.get("alert"), Mapping):
            aps["alert"] = {**alert, **aps_override["alert"]}
    return {"aps": aps, **notification.data, **payload_override, "fanout": _about(notification)}


def _aps(notification: Notification, push_type: str) -> dict[str, Any]:
    if push_type == "background":
        return {"content-available": 1}
    if push_type in ("controls", "widgets"):
        return {"content-changed": True}
    aps: dict[str, Any] = {}
    if alert := _present(_TEXTS, _TEXTS_OF(notification)):
        aps["alert"] = alert
    if (rest := _REST_OF(notification)) != _NO_REST:
        aps |= _present(_REST, rest)
    if notification.image is not None:
        aps["mutable-content"] = 1  # lets the app's service extension fetch the picture before the alert is shown
    return aps


def _present(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Those of the values that are there, by name."""
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _about(notification: Notification) -> dict[str, Any]:
    """The data that the app finds under `fanout`: the id by which it recognises a repetition, and the values that `aps`
    has no place for."""
    about: dict[str, Any] = {"id": notification.id}
    if notification.url is not None:
        about["url"] = notification.url
    if notification.image is not None:
        about["image"] = notification.image
    if notification.actions:
        about["actions"] = [
            {"id": action.id, "title": action.title, **({"url": action.url} if action.url is not None else {})}
            for action in notification.actions
        ]
    return about


@lru_cache(256)
def _headers(
    push_type: str, topic: str, lane: str, key: str | None, expiration: int | None, more: tuple[tuple[str, str], ...]
) -> Headers:
    """The headers of a collapse key, with `more` in place of ours. Notifications of one second have the same."""
    given = dict(more)
    suffix = SUFFIXES[push_type]
    own_topic = "apns-topic" not in given
    if own_topic and suffix and not topic:
        raise InvalidMessage(
            f"A {push_type} push needs a topic: set topic in the binding's configuration to the app's bundle id."
        )
    priority = given.pop("apns-priority", "5" if push_type == "background" else _PRIORITIES[lane])
    if priority not in ("1", "5", "10"):
        raise InvalidMessage(f"priority is {priority!r}: APNs knows 10 (now), 5 (saves power) and 1 (saves most).")
    if push_type == "background" and priority == "10":
        raise InvalidMessage("priority is 10, which APNs refuses for a background push: use 5 or leave it out.")
    collapse = given.pop("apns-collapse-id", collapse_id(key) if key is not None else "")
    if collapse and collapse_id(collapse) != collapse:
        raise InvalidMessage(f"collapse_id must be printable ASCII of at most {COLLAPSE_LIMIT} bytes.")
    return Headers(
        push_type=push_type,
        topic=given.pop("apns-topic") if not own_topic else topic + suffix if topic else "",
        priority=int(priority),
        expiration=expiration,
        collapse_id=collapse,
        extra=tuple(sorted(given.items())) if given else (),
        own_topic=own_topic,
    )


def _expiration(notification: Notification, given: str | None) -> int | None:
    if given is not None:
        if not (given.isascii() and given.isdigit() and len(given) < 12):
            raise InvalidMessage(f"expiration is {given!r}: write UNIX seconds, or 0 for now or never.")
        return int(given)
    if notification.ttl == 0:
        return 0
    return None if math.isinf(notification.expires_at) else int(notification.expires_at)


def _given_headers(overrides: Mapping[str, Any]) -> dict[str, str]:
    unknown = set(overrides) - {"aps", "payload", "headers", *_FRIENDLY}
    if unknown:
        names = ", ".join(("aps", "payload", "headers", *_FRIENDLY))
        raise InvalidMessage(f"The APNs override {sorted(unknown)[0]!r} is not known: there are {names}.")
    given = {_FRIENDLY[name]: overrides[name] for name in _FRIENDLY if name in overrides}
    for name, value in _table(overrides, "headers").items():
        if not isinstance(name, str) or not name.startswith("apns-") or name in _OWN or name != name.lower():
            raise InvalidMessage(f"The header {name!r} cannot be set: only apns-… headers, and not apns-id.")
        given[name] = value
    texts: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InvalidMessage(f"{name} must be a text or a number, not {type(value).__name__}.")
        text = str(value)
        if not text or not text.isascii() or not text.isprintable() or text != text.strip():
            raise InvalidMessage(f"{name} must be printable ASCII.")
        texts[name] = text
    return texts


def _table(overrides: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = overrides.get(name, {})
    if not isinstance(value, Mapping):
        raise InvalidMessage(f"The APNs override {name!r} must be a table, not {type(value).__name__}.")
    return value
