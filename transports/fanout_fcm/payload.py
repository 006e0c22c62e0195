"""A notification in Google's form: one JSON text with slots for the device and the remaining TTL. Pure.

The schema is that of the FCM v1 discovery document, revision 20261023. As the platform behind a token is not known to
us, every message carries the parts that each of them needs: `android`, `apns` and `webpush`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import orjson

from fanout.plugin import InvalidMessage, Message, MessageTooLarge, Notification
from fanout_fcm.address import FID
from fanout_fcm.merge import camel, find, overlay

__all__ = ["LIMIT", "LONGEST_TTL", "RESERVED", "FcmMessage", "encode"]

LIMIT = 4096
"""Bytes of payload to one device ("Throttling and quotas")."""

LONGEST_TTL = 28 * 86_400
"""Seconds for which Google keeps a message at most (`android.ttl`: 0 to 2,419,200 s)."""

_TARGETS = ("token", "fid", "topic", "condition")
RESERVED = ("from", "message_type", "google.", "gcm.notification.")
"""Keys of the data that FCM keeps for itself; of the latter two, all that begin so."""
_PLATFORMS = {"android", "androidV2", "apns", "webpush"}
_SHOWN = {"notification", "data", "payload", "remoteNotification", "liveActivityToken"}
_COLLAPSE_ID_LIMIT = 64  # bytes of apns-collapse-id
_TOPIC_LIMIT = 32  # characters of the Topic header (RFC 8030, section 5.4)
_BASE64URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_ANDROID = {"urgent": "HIGH", "normal": "HIGH", "bulk": "NORMAL"}
_APNS = {"urgent": "10", "normal": "10", "bulk": "5"}
_URGENCY = {"urgent": "high", "normal": "normal", "bulk": "low"}
_BEFORE_TOKEN = b'{"message":{"token":'
_BEFORE_FID = b'{"message":{"fid":'

_CUT = b"\xff"  # no JSON text has this byte, so the text can be cut where it stands
_TTL = orjson.Fragment(b'"' + _CUT + b'"')
_TTL_SECONDS = orjson.Fragment(b'"' + _CUT + b's"')

_KEY = attrgetter("visible", "lane", "collapse_key", "badge", "sound", "category", "thread", "icon")
_KEPT: dict[tuple[Any, ...], tuple[int, bytes]] = {}
_MOST_KEPT = 256


class FcmMessage(Message):
    """A notification for one binding: the texts between which the remaining TTL stands, kept joined for the last TTL
    asked for."""

    __slots__ = ("_parts", "_rest", "_ttl")

    def __init__(self, size: int, parts: tuple[bytes, ...]) -> None:
        super().__init__(size)
        self._parts = parts
        self._ttl = -1
        self._rest = b""

    def body(self, kind: str, address: str, ttl: int) -> bytes:
        """The request's body for one device. `ttl` is the remaining time, in seconds."""
        if ttl != self._ttl:
            self._rest = (b"%d" % min(ttl, LONGEST_TTL)).join(self._parts)
            self._ttl = ttl
        return (_BEFORE_FID if kind == FID else _BEFORE_TOKEN) + orjson.dumps(address) + self._rest


def encode(notification: Notification, overrides: Mapping[str, Any], *, validate_only: bool = False) -> FcmMessage:
    """The message of `notification`. `overrides` is its part for this binding: a part of Google's `Message`, laid over
    ours.

    With `validate_only`, here or in the overrides, Google checks the message and does not deliver it.

    Raises `InvalidMessage`, and `MessageTooLarge` above Google's limit.
    """
    size, text = _encoded(_overlaid(notification, overrides)) if overrides else _plain(notification)
    if overrides and (flag := find(overrides, "validateOnly")) is not None:
        validate_only = overrides[flag]
    if size > LIMIT:
        raise MessageTooLarge(
            f"The payload for FCM has {size} bytes and may have {LIMIT}: shorten the body or the data, "
            "or send a link to the rest.",
            size=size,
            limit=LIMIT,
        )
    end = b'},"validateOnly":true}' if validate_only else b"}}"
    return FcmMessage(size, tuple((b"," + text[1:-1] + end).split(_CUT)))


def _plain(notification: Notification) -> tuple[int, bytes]:
    """`_encoded` of the message without overrides. The platforms' parts are kept where they have nothing of the
    content: notifications that differ in title, body and data alone, and end in one second, have the same."""
    members = [b'"data":' + _dumps(_data(notification))]
    if notification.visible:
        members.append(b'"notification":' + _dumps(_shown(notification)))
    ends, key = notification.expires_at, None
    if not (notification.subtitle or notification.image or notification.url or notification.actions):
        key = *_KEY(notification), notification.ttl == 0, ends if math.isinf(ends) else int(ends)
    if key is None or (found := _KEPT.get(key)) is None:
        parts = _parts(notification, second=False)
        found = _largest(parts), _dumps(parts)[1:-1]
        if key is not None:
            if len(_KEPT) >= _MOST_KEPT:
                _KEPT.clear()
            _KEPT[key] = found
    return len("{") + sum(map(len, members)) + len(members) + found[0], b"{%b,%b}" % (b",".join(members), found[1])


def _overlaid(notification: Notification, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The message with the overrides laid over it, but for `validateOnly`, which is no part of it."""
    for target in _TARGETS:
        if target in overrides:
            raise InvalidMessage(
                f"The FCM override names {target!r}: take it out, the notification's target says to whom it goes."
            )
    flag = find(overrides, "validateOnly")
    if flag is not None:
        if not isinstance(overrides[flag], bool):
            raise InvalidMessage(f"The FCM override {flag} must be true or false.")
        overrides = {key: value for key, value in overrides.items() if key != flag}
    data = overrides.get("data")
    if isinstance(data, Mapping) and "fanout" in data:
        raise InvalidMessage(
            "The FCM override has data.fanout, where the app reads which notification this is: take it out."
        )
    message = overlay(_message(notification, bool(find(overrides, "androidV2"))), overrides)
    if find(message, "android") and find(message, "androidV2"):
        raise InvalidMessage("The FCM override has both android and androidV2, which Google refuses: keep one.")
    _check_data(message)
    return message


def _encoded(message: dict[str, Any]) -> tuple[int, bytes]:
    """The bytes that reach a device, for the platform to which most do, and the whole as JSON, in which each value is
    encoded once.

    A device receives texts and data, not the fields that only steer the delivery. Google documents the limit and not
    how it counts; counting the JSON text with its punctuation errs on the safe side.
    """
    common = sum([_embed(message, name) for name in ("notification", "data") if message.get(name)])
    return len("{") + common + _largest(message), _dumps(message)


def _largest(message: dict[str, Any]) -> int:
    """The bytes of the largest platform's own part that reach a device."""
    largest = 0
    for name, block in message.items():
        if name in _PLATFORMS or camel(name) in _PLATFORMS:
            own = sum([_embed(block, key) for key in block if key in _SHOWN or camel(key) in _SHOWN])
            largest = max(largest, own + len('"+":{}') if own else 0)
    return largest


def _embed(values: dict[str, Any], key: str) -> int:
    """Put the value's JSON text in its place; bytes of its member, with the comma or brace behind it."""
    text = _dumps(values[key])
    values[key] = orjson.Fragment(text)
    return len(text) + len(key) + len('"":,')


def _message(notification: Notification, second: bool) -> dict[str, Any]:
    """The message before overrides, without a target; `second`: with `androidV2`, whose kind of content the override
    chooses."""
    message: dict[str, Any] = {"data": _data(notification)}
    if notification.visible:
        message["notification"] = _shown(notification)
    return message | _parts(notification, second)


def _shown(notification: Notification) -> dict[str, Any]:
    return _present(title=notification.title, body=notification.body, image=notification.image)


def _parts(notification: Notification, second: bool) -> dict[str, Any]:
    """The platforms' parts. `_KEY` and `_plain` name every field that they read."""
    common = _present(ttl=_TTL_SECONDS, collapseKey=notification.collapse_key)
    parts = {"androidV2": common} if second else {"android": common | _android(notification)}
    return parts | {"apns": _apns(notification), "webpush": _webpush(notification)}


def _data(notification: Notification) -> dict[str, str]:
    if "fanout" in notification.data:
        raise InvalidMessage("data has the key 'fanout', which stands for something else: rename it.")
    for key in notification.data:
        _check_key("data", key)
    data = {key: value if isinstance(value, str) else _text(value) for key, value in notification.data.items()}
    data["fanout"] = _text(_about(notification))
    return data


def _about(notification: Notification) -> dict[str, Any]:
    """The data that the app finds under `fanout`: the id by which it recognises a repetition, and the values that FCM
    has no field for."""
    actions = [_present(id=a.id, title=a.title, url=a.url) for a in notification.actions]
    return _present(id=notification.id, url=notification.url, actions=actions or None)


def _android(notification: Notification) -> dict[str, Any]:
    # High priority is for messages that the user sees at once: Google slows down apps that use it for anything else.
    priority = _ANDROID[notification.lane] if notification.visible or notification.lane == "urgent" else "NORMAL"
    if not notification.visible:
        return {"priority": priority}
    icon = notification.icon
    return {
        "priority": priority,
        "notification": _present(
            icon=icon if icon and "/" not in icon else None,  # the name of a drawable; a URL is for browsers
            sound=notification.sound,
            channelId=notification.category,
            tag=notification.collapse_key,
            notificationCount=notification.badge or None,  # 0 means "add one" to Android
        ),
    }


def _apns(notification: Notification) -> dict[str, Any]:
    shows = notification.visible or notification.badge is not None or notification.sound is not None
    key = notification.collapse_key
    headers = _present(
        **{
            "apns-push-type": "alert" if shows else "background",
            "apns-priority": _APNS[notification.lane] if shows else "5",
            "apns-collapse-id": _fitted(key, _COLLAPSE_ID_LIMIT) if key is not None else None,
        }
    )
    if notification.ttl == 0:
        headers["apns-expiration"] = "0"
    elif not math.isinf(notification.expires_at):
        headers["apns-expiration"] = str(int(notification.expires_at))
    if not shows:
        return {"headers": headers, "payload": {"aps": {"content-available": 1}}}
    texts = _present(title=notification.title, subtitle=notification.subtitle, body=notification.body)
    aps = _present(
        **{
            "alert": texts if notification.subtitle is not None else None,  # the rest is in `notification`
            "badge": notification.badge,
            "sound": notification.sound,
            "category": notification.category,
            "thread-id": notification.thread,
            # Lets the app's service extension fetch the picture before the alert is shown.
            "mutable-content": 1 if notification.image is not None else None,
        }
    )
    block: dict[str, Any] = {"headers": headers, **({"payload": {"aps": aps}} if aps else {})}
    if notification.image is not None:
        block["fcmOptions"] = {"image": notification.image}
    return block


def _webpush(notification: Notification) -> dict[str, Any]:
    key = notification.collapse_key
    topic = None
    if key is not None:
        # Some push services decode it, which a length of 4n+1 prevents.
        legal = len(key) <= _TOPIC_LIMIT and len(key) % 4 != 1 and set(key) <= _BASE64URL
        topic = key if legal else base64.urlsafe_b64encode(blake2b(key.encode(), digest_size=24).digest()).decode()
    block: dict[str, Any] = {"headers": _present(TTL=_TTL, Urgency=_URGENCY[notification.lane], Topic=topic)}
    if notification.visible:
        icon = notification.icon
        shown = _present(
            icon=icon if icon and "/" in icon else None,
            image=notification.image,
            tag=key,
            actions=[{"action": a.id, "title": a.title} for a in notification.actions] or None,
        )
        if shown:
            block["notification"] = shown
        if notification.url is not None and notification.url.startswith("https://"):
            block["fcmOptions"] = {"link": notification.url}
    return block


def _check_data(message: Mapping[str, Any]) -> None:
    """Google's rules for `data`, wherever it stands (reference of `Message.data`)."""
    for place in ("", "android", "androidV2", "webpush"):
        block = message.get(find(message, place) or "", {}) if place else message
        if not isinstance(block, Mapping):
            raise InvalidMessage(f"The FCM override {place} must be a table, not {type(block).__name__}.")
        where = f"{place}.data" if place else "data"
        data = block.get("data", {})
        if not isinstance(data, Mapping):
            raise InvalidMessage(f"The FCM override {where} must be a table, not {type(data).__name__}.")
        for key, value in data.items():
            _check_key(where, key)
            if not isinstance(value, str):
                raise InvalidMessage(f"{where}.{key} in the FCM override must be a text, as FCM carries nothing else.")


def _check_key(where: str, key: Any) -> None:
    if not isinstance(key, str):
        raise InvalidMessage(f"{where} has a key that is no text: write it in quotes.")
    if key in RESERVED or key.startswith(RESERVED[2:]):
        raise InvalidMessage(f"{where} has the key {key!r}, which FCM keeps for itself: rename it.")


def _fitted(key: str, limit: int) -> str:
    """`key` where a header takes it, else a hash of it, the same everywhere."""
    if key.isascii() and key.isprintable() and key == key.strip() and len(key) <= limit:
        return key
    return blake2b(key.encode(), digest_size=24).hexdigest()


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return _dumps(value).decode()


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)  # the kept part is cut out, and so copied
    except TypeError as error:
        raise InvalidMessage(f"data and overrides for FCM must be plain JSON: {error}.") from None
