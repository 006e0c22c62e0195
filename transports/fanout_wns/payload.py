"""A notification in Windows' form: XML for toasts, tiles and badges, JSON for raw, and the headers. Pure.

The forms are Microsoft's "Toast content schema", "Tile schema" and "Badge schema"; the headers those of "Push
notification service request and response headers". XML is built by a library, never pasted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from xml.etree import ElementTree as ET

import orjson

from fanout.plugin import Action, InvalidMessage, Message, MessageTooLarge, Notification, compact, fitting

__all__ = ["KINDS", "LIMIT", "WnsMessage", "encode", "fits", "tag"]

LIMIT = 5000
"""Bytes of payload, of any kind."""

KINDS = ("toast", "tile", "badge", "raw")

_PRIORITIES = {"urgent": "1", "normal": "", "bulk": "3"}
"""1 is high and 3 low; without the header a kind has its own: toast 1, tile and badge 2, raw 3."""

_TAG = re.compile(r"[A-Za-z0-9]{1,16}")
_HEADER = re.compile(r"[Xx]-[Ww][Nn][Ss]-[A-Za-z]{1,40}")
_OWN = ("x-wns-type", "x-wns-ttl")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 (section 2.2) cannot hold, not even escaped."""
_SOUNDS = ("ms-winsoundevent:", "ms-appx:///", "ms-appdata:///")

_FRIENDLY = {
    "tag": "X-WNS-Tag",
    "group": "X-WNS-Group",
    "priority": "X-WNS-Priority",
    "cache_policy": "X-WNS-Cache-Policy",
    "request_for_status": "X-WNS-RequestForStatus",
}
_CONTENT = ("type", "xml", "raw")
_VALUES = {
    "X-WNS-Tag": (_TAG, "1 to 16 letters and digits"),
    "X-WNS-Group": (_TAG, "1 to 16 letters and digits"),
    "X-WNS-Priority": (re.compile("[1-4]"), "1 (high) to 4 (very low)"),
    "X-WNS-Cache-Policy": (re.compile("cache|no-cache"), "cache or no-cache"),
    "X-WNS-RequestForStatus": (re.compile("true|false"), "true or false"),
}


class WnsMessage(Message):
    """A notification for one binding: its body, and its headers for deliveries with time left (`headers`) and without
    (`now_or_never`)."""

    __slots__ = ("body", "headers", "kind", "now_or_never")

    def __init__(self, kind: str, body: bytes, headers: dict[str, str]) -> None:
        super().__init__(len(body))
        self.kind = kind
        self.body = body
        self.headers = headers
        # A TTL of 0 conflicts with a stored notification: WNS answers 400 "Ttl value conflicts with
        # X-WNS-Cache-Policy".
        self.now_or_never = {**headers, "X-WNS-Cache-Policy": "no-cache"}


def encode(notification: Notification, overrides: Mapping[str, Any], *, request_for_status: bool = False) -> WnsMessage:
    """The message of `notification`.

    A visible notification is a toast, one with nothing but a badge a badge, any other raw. `overrides` is the part of
    the notification for this binding: `type` is another kind, `xml` (toast, tile, badge) or `raw` (a text) the whole
    content as it is; `tag`, `group`, `priority`, `cache_policy` and `request_for_status`, or `headers` with X-WNS-…
    names, replace ours.

    Raises `InvalidMessage`, and `MessageTooLarge` above the limit of WNS.
    """
    unknown = set(overrides) - {*_CONTENT, *_FRIENDLY, "headers"}
    if unknown:
        names = ", ".join((*_CONTENT, *_FRIENDLY, "headers"))
        raise InvalidMessage(f"The WNS override {min(map(str, unknown))!r} is not known: there are {names}.")
    kind, body = _body(notification, overrides)
    if len(body) > LIMIT:
        raise MessageTooLarge(
            f"The payload for WNS has {len(body)} bytes and may have {LIMIT}: shorten the body or the data, "
            "or send a link to the rest.",
            size=len(body),
            limit=LIMIT,
        )
    return WnsMessage(kind, body, _headers(notification, kind, overrides, request_for_status))


_small = fitting(LIMIT, "fanout", times=6)  # a quotation mark of the content has six in an attribute: &quot;


def fits(notification: Notification, size: int) -> bool:
    """See `Transport`: no action, each of which repeats the data, and no character that XML cannot hold."""
    n = notification
    texts = f"{n.title}{n.subtitle}{n.body}{n.icon}{n.image}{n.sound}"
    return _small(n, size) and not n.actions and not _NOT_XML.search(texts)


def tag(collapse_key: str) -> str:
    """`collapse_key` where WNS takes it as a tag (16 letters and digits at most), else a hash of it, the same
    everywhere."""
    return collapse_key if _TAG.fullmatch(collapse_key) else blake2b(collapse_key.encode(), digest_size=8).hexdigest()


def _body(notification: Notification, overrides: Mapping[str, Any]) -> tuple[str, bytes]:
    kind, xml, raw = (overrides.get(name) for name in _CONTENT)
    if xml is not None and raw is not None:
        raise InvalidMessage("The WNS overrides xml and raw exclude each other: keep one.")
    if xml is not None:
        return _given_xml(kind, xml)
    if kind is None:
        kind = "raw" if raw is not None else _kind(notification)
    if kind == "raw":
        return kind, _raw(notification, raw)
    if raw is not None:
        raise InvalidMessage('The WNS override raw needs type = "raw": take the other type out.')
    if kind not in KINDS:
        raise InvalidMessage(f"type is {kind!r}: WNS knows {', '.join(KINDS)}.")
    return kind, _serialize(_FORMS[kind](notification))


def _kind(notification: Notification) -> str:
    if notification.visible:
        return "toast"
    return "badge" if notification.badge is not None and not notification.data else "raw"


def _given_xml(kind: Any, xml: Any) -> tuple[str, bytes]:
    """The caller's own XML, untouched; looked at only to refuse content that WNS would refuse."""
    if not isinstance(xml, str):
        raise InvalidMessage("The WNS override xml must be a text.")
    if "<!DOCTYPE" in xml.upper():
        raise InvalidMessage("The WNS override xml has a DOCTYPE, which no notification needs: take it out.")
    try:
        body = xml.encode()
        root = ET.fromstring(body).tag
    except (ET.ParseError, UnicodeEncodeError, LookupError, ValueError):
        raise InvalidMessage("The WNS override xml is not well-formed XML in UTF-8: correct it.") from None
    if root not in ("toast", "tile", "badge") or kind not in (None, root):
        raise InvalidMessage(
            f"The WNS override xml must be a toast, tile or badge element that agrees with type; it is {root!r}."
        )
    return root, body


def _raw(notification: Notification, raw: Any) -> bytes:
    if raw is None:
        return _json({**_data(notification), "fanout": _about(notification)})
    if not isinstance(raw, str) or not raw:
        raise InvalidMessage("The WNS override raw must be a text that is not empty.")
    try:
        return raw.encode()
    except UnicodeEncodeError:
        raise InvalidMessage("The WNS override raw holds half a surrogate pair, no UTF-8: take it out.") from None


def _toast(notification: Notification) -> ET.Element:
    if not notification.visible:
        raise InvalidMessage("A toast shows a title, a body or an image: give the notification one of them.")
    toast = ET.Element("toast", launch=_launch(notification))
    binding = ET.SubElement(ET.SubElement(toast, "visual"), "binding", template="ToastGeneric")
    _texts(binding, notification)
    if notification.icon is not None:
        ET.SubElement(binding, "image", placement="appLogoOverride", src=_clean("icon", notification.icon))
    if notification.image is not None:
        ET.SubElement(binding, "image", src=_clean("image", notification.image))
    if notification.actions:
        actions = ET.SubElement(toast, "actions")
        for action in notification.actions:
            ET.SubElement(actions, "action", _action(notification, action))
    sound = notification.sound
    if sound in ("", "silent", "none"):
        ET.SubElement(toast, "audio", silent="true")
    elif sound is not None and sound.startswith(_SOUNDS):
        ET.SubElement(toast, "audio", src=_clean("sound", sound))
    return toast


def _tile(notification: Notification) -> ET.Element:
    if not notification.visible:
        raise InvalidMessage("A tile shows a title, a body or an image: give the notification one of them.")
    tile = ET.Element("tile")
    visual = ET.SubElement(tile, "visual", arguments=_launch(notification))
    for template in ("TileMedium", "TileWide", "TileLarge"):
        binding = ET.SubElement(visual, "binding", template=template)
        _texts(binding, notification)
        if notification.image is not None:
            ET.SubElement(binding, "image", src=_clean("image", notification.image))
    return tile


def _badge(notification: Notification) -> ET.Element:
    if notification.badge is None:
        raise InvalidMessage("A badge shows the notification's badge: give it one, a count from 0.")
    badge = ET.Element("badge", value=str(notification.badge))
    badge.append(ET.Comment(f" fanout {notification.id} "))  # the schema has no place for the id
    return badge


_FORMS = {"toast": _toast, "tile": _tile, "badge": _badge}


def _texts(binding: ET.Element, notification: Notification) -> None:
    for name in ("title", "subtitle", "body"):
        text = getattr(notification, name)
        if text is not None:
            ET.SubElement(binding, "text").text = _clean(name, text)


def _action(notification: Notification, action: Action) -> dict[str, str]:
    common = {"content": _clean("an action's title", action.title)}
    if action.url is not None:
        return {**common, "arguments": _clean("an action's url", action.url), "activationType": "protocol"}
    about = {"fanout": {"id": notification.id, "action": action.id}}
    return {**common, "arguments": _arguments({**_data(notification), **about}), "activationType": "foreground"}


def _launch(notification: Notification) -> str:
    """The arguments that the app is given when the notification is pressed."""
    return _arguments({**_data(notification), "fanout": _about(notification)})


def _data(notification: Notification) -> Mapping[str, Any]:
    if "fanout" in notification.data:
        raise InvalidMessage("data has the key 'fanout', which stands for something else: rename it.")
    return notification.data


def _about(notification: Notification) -> dict[str, Any]:
    """The data that the app finds under `fanout`: the id by which it recognises a repetition, and the values without a
    place of their own."""
    about = {"id": notification.id, "url": notification.url, "badge": notification.badge}
    return {name: value for name, value in about.items() if value is not None}


def _headers(
    notification: Notification, kind: str, overrides: Mapping[str, Any], request_for_status: bool
) -> dict[str, str]:
    headers = {
        "X-WNS-Type": f"wns/{kind}",
        "Content-Type": "application/octet-stream" if kind == "raw" else "text/xml",
        "X-WNS-Priority": _PRIORITIES[notification.lane],
        # Raw is not kept for a device that is offline unless it is asked for; toasts have no such choice.
        "X-WNS-Cache-Policy": "" if kind == "toast" else "cache",
        "X-WNS-RequestForStatus": "true" if request_for_status else "",
    }
    if notification.collapse_key is not None and kind in ("toast", "tile"):
        headers["X-WNS-Tag"] = tag(notification.collapse_key)
    for name, value in _given_headers(overrides).items():
        headers = {header: old for header, old in headers.items() if header.lower() != name.lower()}
        headers[name] = value
    return {name: value for name, value in headers.items() if value}


def _given_headers(overrides: Mapping[str, Any]) -> dict[str, str]:
    given = {_FRIENDLY[name]: overrides[name] for name in _FRIENDLY if name in overrides}
    extra = overrides.get("headers", {})
    if not isinstance(extra, Mapping):
        raise InvalidMessage("The WNS override headers must be a table.")
    for name, value in extra.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.lower() in _OWN:
            raise InvalidMessage(f"The header {name!r} cannot be set: only X-WNS-… headers, and neither type nor TTL.")
        canonical = next((header for header in _VALUES if header.lower() == name.lower()), name)
        given[canonical] = value
    return {name: _value(name, value) for name, value in given.items()}


def _value(name: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, (str, int)) else ""
    form, meant = _VALUES.get(name, (re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?"), "printable ASCII"))
    if not form.fullmatch(text):
        raise InvalidMessage(f"{name} must be {meant}.")
    return text


def _clean(name: str, text: str) -> str:
    if _NOT_XML.search(text):
        raise InvalidMessage(f"{name} holds a control character that XML cannot express: take it out.")
    return text


def _arguments(values: Mapping[str, Any]) -> str:
    """JSON for an attribute. JSON itself may hold U+FFFE and U+FFFF, and XML not: they are escaped as JSON allows."""
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", _json(values).decode())


def _json(values: Mapping[str, Any]) -> bytes:
    try:
        return compact(orjson.dumps(values))
    except TypeError as error:
        raise InvalidMessage(f"data for WNS must be plain JSON: {error}.") from None


def _serialize(root: ET.Element) -> bytes:
    body: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return body
