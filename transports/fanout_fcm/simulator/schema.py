"""The rules by which Google's server lets a message through: names, types and bounds. Pure; the simulator's own, so
that it checks the transport.

From the FCM v1 discovery document, revision 20261023. Nothing here has been compared with Google's servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import orjson

__all__ = ["Violation", "violations"]

Violation: TypeAlias = tuple[str, str]
"""(field path, description) of a `google.rpc.BadRequest`."""

Check = Callable[[Any], str]
Schema: TypeAlias = "dict[str, Check | Schema]"

_DURATION = re.compile(r"(\d{1,12})(?:\.\d{1,9})?s")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_LABEL = re.compile(r"[a-zA-Z0-9-_.~%]{1,50}")
_TOPIC = re.compile(r"[a-zA-Z0-9-_.~%]{1,900}")
_FOUR_WEEKS = 2_419_200


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be a string"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be a boolean"


def _number(value: Any) -> str:
    return "" if isinstance(value, (int, float)) and not isinstance(value, bool) else "must be a number"


def _texts(value: Any) -> str:
    right = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return "" if right else "must be a list of strings"


def _map(value: Any) -> str:
    right = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return "" if right else "must be a map of strings"


def _data(value: Any) -> str:
    if _map(value):
        return _map(value)
    for key in value:
        if key in ("from", "message_type") or key.startswith(("google.", "gcm.notification.")):
            return f"Invalid data payload key: {key}"
    return ""


def _struct(value: Any) -> str:
    return "" if isinstance(value, dict) else "must be an object"


def _ttl(value: Any) -> str:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return "Illegal duration format; duration must end with 's'"
    return "" if int(found.group(1)) <= _FOUR_WEEKS else "TTL must be between 0 and 2419200 seconds"


def _durations(value: Any) -> str:
    right = isinstance(value, list) and all(isinstance(item, str) and _DURATION.fullmatch(item) for item in value)
    return "" if right else "must be a list of durations"


def _formed(pattern: re.Pattern[str]) -> Check:
    return lambda value: "" if isinstance(value, str) and pattern.fullmatch(value) else f"must match {pattern.pattern}"


def _one_of(*words: str) -> Check:
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


def _https(value: Any) -> str:
    return "" if isinstance(value, str) and value.startswith("https://") else "must be an https URL"


_OPTIONS: Schema = {"analyticsLabel": _formed(_LABEL)}
_NOTIFICATION: Schema = {"title": _text, "body": _text, "image": _text}
_ANDROID_NOTIFICATION: Schema = {
    **dict.fromkeys(("title", "body", "icon", "sound", "tag", "clickAction", "bodyLocKey", "titleLocKey"), _text),
    **dict.fromkeys(("channelId", "ticker", "eventTime", "image"), _text),
    **dict.fromkeys(("bodyLocArgs", "titleLocArgs"), _texts),
    **dict.fromkeys(("sticky", "localOnly", "defaultSound", "defaultVibrateTimings", "defaultLightSettings"), _flag),
    "bypassProxyNotification": _flag,
    "color": _formed(_COLOR),
    "notificationPriority": _one_of(*(f"PRIORITY_{word}" for word in ("MIN", "LOW", "DEFAULT", "HIGH", "MAX"))),
    "vibrateTimings": _durations,
    "visibility": _one_of("PRIVATE", "PUBLIC", "SECRET"),
    "notificationCount": _number,
    "lightSettings": {"color": _struct, "lightOnDuration": _text, "lightOffDuration": _text},
    "proxy": _one_of("ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
}
_ANDROID_COMMON: Schema = {
    "collapseKey": _text,
    "ttl": _ttl,
    "restrictedPackageName": _text,
    "data": _data,
    "fcmOptions": _OPTIONS,
    **dict.fromkeys(("directBootOk", "bandwidthConstrainedOk", "restrictedSatelliteOk"), _flag),
}
MESSAGE: Schema = {
    **dict.fromkeys(("fid", "token", "condition"), _text),
    "topic": _formed(_TOPIC),
    "data": _data,
    "notification": _NOTIFICATION,
    "android": {
        **_ANDROID_COMMON,
        "priority": _one_of("NORMAL", "HIGH", "normal", "high"),
        "notification": _ANDROID_NOTIFICATION,
    },
    "androidV2": {
        **_ANDROID_COMMON,
        "remoteNotification": {
            "mutableContent": _flag,
            "useAsV1DataMessage": _flag,
            "notification": {**_ANDROID_NOTIFICATION, "id": _text},
        },
        "backgroundSync": {},
    },
    "apns": {
        "headers": _map,
        "payload": _struct,
        "fcmOptions": {**_OPTIONS, "image": _text},
        "liveActivityToken": _text,
    },
    "webpush": {
        "headers": _map,
        "data": _data,
        "notification": _struct,
        "fcmOptions": {**_OPTIONS, "link": _https},
    },
    "fcmOptions": _OPTIONS,
}
"""Every field of `Message`, under its camelCase name."""


def violations(message: Mapping[str, Any]) -> list[Violation]:
    """The faults of a message, in the order in which they are found; empty if Google would take it."""
    found: list[Violation] = []
    plain = _walk(message, MESSAGE, "message", found)
    targets = [name for name in ("fid", "token", "topic", "condition") if name in plain]
    if len(targets) != 1:
        found.append(("message", "Exactly one of fid, token, topic and condition must be set"))
    if "android" in plain and "androidV2" in plain:
        found.append(("message.android_v2", "android and android_v2 must not both be set"))
    if found:
        return found
    headers = {name.lower(): value for name, value in plain.get("apns", {}).get("headers", {}).items()}
    if "apns" in plain:
        found += _apns(plain, headers)
    size = _size(plain)
    limit = 2048 if targets[0] in ("topic", "condition") else 4096
    if size > limit:
        found.append(("message", f"Android message is too big ({size} bytes, limit {limit})"))
    return found


def _apns(message: Mapping[str, Any], headers: Mapping[str, str]) -> list[Violation]:
    aps = message["apns"].get("payload", {}).get("aps", {})
    where = "message.apns.headers"
    priority = headers.get("apns-priority", "10")
    shows = "notification" in message or {"alert", "badge", "sound"} & set(aps)
    if priority not in ("1", "5", "10"):
        return [(where, "Invalid apns-priority")]
    if not shows and priority == "10" and "apns-priority" in headers:
        return [(where, "A data message to Apple devices may only have the apns-priority 5")]
    if not headers.get("apns-expiration", "0").isdigit():
        return [(where, "Invalid apns-expiration")]
    if len(headers.get("apns-collapse-id", "").encode()) > 64:
        return [(where, "apns-collapse-id is longer than 64 bytes")]
    return []


def _walk(values: Any, schema: Schema, path: str, found: list[Violation]) -> dict[str, Any]:
    """The fields under their camelCase names; faults go to `found`."""
    if not isinstance(values, dict):
        found.append((path, "must be an object"))
        return {}
    plain: dict[str, Any] = {}
    for key, value in values.items():
        name = _camel(key)
        rule = schema.get(name)
        if rule is None:
            found.append((f"{path}.{key}", f"Invalid JSON payload received. Unknown name \"{key}\" at '{path}'"))
        elif name in plain:
            found.append((f"{path}.{key}", "is set twice"))
        elif isinstance(rule, dict):
            plain[name] = _walk(value, rule, f"{path}.{name}", found)
        else:
            plain[name] = value
            trouble = rule(value)
            if trouble:
                found.append((f"{path}.{name}", trouble))
    return plain


def _size(message: Mapping[str, Any]) -> int:
    """Bytes of texts and data for the platform to which most go: keys and values, without JSON's own punctuation."""
    shared = _weight(message.get("notification", {})) + _weight(message.get("data", {}))
    own = [0]
    for platform in ("android", "androidV2", "webpush"):
        block = message.get(platform, {})
        own.append(_weight({key: block[key] for key in ("notification", "data", "remoteNotification") if key in block}))
    apns = message.get("apns", {}).get("payload")
    own.append(len(orjson.dumps(apns)) if apns else 0)
    return shared + max(own)


def _weight(value: Any) -> int:
    if isinstance(value, dict):
        return sum(len(key.encode()) + _weight(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_weight, value))
    return len(value.encode()) if isinstance(value, str) else len(orjson.dumps(value))


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
