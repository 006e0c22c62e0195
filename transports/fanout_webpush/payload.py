"""A notification as the service worker receives it, and its headers. Pure.

Visible: `{"title", "body", "icon", "image", "badge", "tag", "url", "actions", "data", "fanout": {"id"}}`, each where
the notification has it; `badge` is a count for `navigator.setAppBadge`, `tag` is the collapse key. Raw: `{"data",
"fanout"}`. With no data either, nothing is sent but the wake-up itself (a request without a body).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from fanout.plugin import InvalidMessage, Message, MessageTooLarge, Notification, compact, literal
from fanout_webpush.encryption import BODY_LIMIT, DELIMITER, MAX_PLAINTEXT

__all__ = ["URGENCIES", "WebPushMessage", "encode", "topic_of", "ttl_field"]

URGENCIES = ("very-low", "low", "normal", "high")
"""RFC 8030, section 5.3."""

_BY_LANE = {"urgent": "high", "normal": "normal", "bulk": "low"}
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
_ENCRYPTED = "application/octet-stream"
_DECLARATIVE = "application/notification+json"
_CONTROLS = ("urgency", "topic", "payload", "declarative")


class WebPushMessage(Message):
    """A notification for one binding: `record` is the plaintext with its delimiter (empty: no body), the rest are
    headers.

    `content_type` is said in every request (RFC 9110, section 8.3), for some servers refuse requests without it; ""
    where the headers say it. `fields` are the headers that do not differ between endpoints, as HPACK literals;
    `headers` the same as text, for HTTP/1.1.
    """

    __slots__ = ("content_type", "fields", "headers", "record")

    def __init__(
        self, plaintext: bytes | None, headers: tuple[tuple[str, str], ...], content_type: str = _ENCRYPTED
    ) -> None:
        super().__init__(len(plaintext) if plaintext is not None else 0)
        self.record = plaintext + DELIMITER if plaintext is not None else b""
        self.headers = headers
        self.content_type = content_type
        self.fields = b"".join(literal(name, value) for name, value in headers)

    @property
    def plaintext(self) -> bytes | None:
        """The data that the service worker receives; None for a wake-up without a body."""
        return self.record[:-1] if self.record else None


def encode(notification: Notification, overrides: Mapping[str, Any]) -> WebPushMessage:
    """The message of `notification`.

    `overrides` is the part of the notification for this binding. `urgency` and `topic` replace the headers. `payload`
    (any JSON, or a text) is sent as it is instead of ours. `declarative` (true, or a table merged into `notification`)
    makes it a Declarative Web Push, which Safari shows without a service worker. Any other key is merged into our
    payload as it is, such as `silent`, `requireInteraction`, `vibrate` or `lang`. Raises `InvalidMessage`, and
    `MessageTooLarge` above 3993 bytes.
    """
    urgency = overrides.get("urgency", _BY_LANE[notification.lane])
    if urgency not in URGENCIES:
        raise InvalidMessage(f"urgency is {urgency!r}: Web Push knows {', '.join(URGENCIES)}.")
    topic = _topic(notification, overrides)
    declared = overrides.get("declarative", False)
    if declared is not False and "payload" in overrides:
        raise InvalidMessage("payload and declarative are both given for Web Push: keep one of them.")
    said = ("" if urgency == "normal" else urgency), topic, ("" if declared is False else _DECLARATIVE)
    headers = [(name, value) for name, value in zip(("urgency", "topic", "content-type"), said, strict=True) if value]
    plaintext = _plaintext(notification, overrides, declared)
    if plaintext is not None and len(plaintext) > MAX_PLAINTEXT:
        raise MessageTooLarge(
            f"The payload for Web Push has {len(plaintext)} bytes and may have {MAX_PLAINTEXT} (encrypted, {BODY_LIMIT}): "
            "shorten the body or the data, or send a link to the rest.",
            size=len(plaintext),
            limit=MAX_PLAINTEXT,
        )
    return WebPushMessage(plaintext, tuple(headers), "" if declared is not False else _ENCRYPTED)


def topic_of(key: str) -> str:
    """The Topic header for a collapse key of any form: the key itself where every push service takes it, else a hash of
    it.

    RFC 8030, section 5.4: at most 32 characters of the base64url alphabet. Apple decodes it too, which a length of 4n+1
    prevents.
    """
    if _TOPIC.fullmatch(key) and len(key) % 4 != 1:
        return key
    return urlsafe_b64encode(blake2b(key.encode(), digest_size=24, person=b"fanout-topic").digest()).decode()


@lru_cache(maxsize=8192)
def ttl_field(seconds: int) -> bytes:
    """The TTL header (RFC 8030, section 5.2) as an HPACK literal."""
    return literal("ttl", str(seconds))


def _topic(notification: Notification, overrides: Mapping[str, Any]) -> str:
    if "topic" not in overrides:
        return topic_of(notification.collapse_key) if notification.collapse_key is not None else ""
    topic = overrides["topic"]
    if not isinstance(topic, str) or (topic and topic_of(topic) != topic):
        raise InvalidMessage(
            'The Web Push topic must have up to 32 letters, digits, "-" or "_", and not 4n+1 of them, which Apple refuses; '
            "a collapse_key may have any form."
        )
    return topic


def _plaintext(notification: Notification, overrides: Mapping[str, Any], declared: Any) -> bytes | None:
    if "payload" in overrides:
        payload = overrides["payload"]
        return payload.encode() if isinstance(payload, str) else _json(payload)
    extra = {name: value for name, value in overrides.items() if name not in _CONTROLS}
    if declared is not False:
        return _json(_declarative(notification, declared, extra))
    if "fanout" in extra:
        raise InvalidMessage("The Web Push override has fanout, where the notification's id stands: rename it.")
    content = _content(notification)
    if not content and not extra:
        return None
    return _json({**content, **extra, "fanout": {"id": notification.id}})


def _content(notification: Notification) -> dict[str, Any]:
    values: dict[str, Any] = {"data": dict(notification.data) or None, "badge": notification.badge}
    if notification.visible:
        values = {
            "title": notification.title,
            "body": notification.body,
            "icon": notification.icon,
            "image": notification.image,
            "tag": notification.collapse_key,
            "url": notification.url,
            "actions": _actions(notification),
            **values,
        }
    return {name: value for name, value in values.items() if value is not None}


def _actions(notification: Notification) -> list[dict[str, str]] | None:
    """In the form of `showNotification` (Notifications API, section 2.4), the URL beside it for our service worker."""
    return [
        {"action": action.id, "title": action.title, **({"url": action.url} if action.url is not None else {})}
        for action in notification.actions
    ] or None


def _declarative(notification: Notification, declared: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Declarative Web Push (WebKit, in the W3C Push API since 2025): 8030 marks it as such, `navigate` is the target of
    a click."""
    if declared is not True and not isinstance(declared, Mapping):
        raise InvalidMessage("declarative must be true, or a table of members of the declared notification.")
    content: dict[str, Any] = {"title": notification.title, "body": notification.body, "navigate": notification.url}
    content |= {"tag": notification.collapse_key, "icon": notification.icon, "image": notification.image}
    content["actions"] = [
        {"action": action.id, "title": action.title, "navigate": action.url or notification.url}
        for action in notification.actions
    ] or None
    content["data"] = {**notification.data, "fanout": {"id": notification.id}}
    content = {name: value for name, value in content.items() if value is not None}
    if isinstance(declared, Mapping):
        content |= declared
    for name in ("title", "navigate"):
        if not isinstance(content.get(name), str) or not content[name]:
            source = "url" if name == "navigate" else "title"
            raise InvalidMessage(f"A declarative Web Push needs {name}: give the notification a {source}.")
    badge = {"app_badge": str(notification.badge)} if notification.badge is not None else {}
    return {"web_push": 8030, "notification": content, **badge, **extra}


def _json(value: Any) -> bytes:
    try:
        return compact(orjson.dumps(value))
    except TypeError as error:
        raise InvalidMessage(f"data and overrides for Web Push must be plain JSON: {error}.") from None
