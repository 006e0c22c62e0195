"""A browser's PushSubscription: read and checked where it is registered, and taken apart again where it is sent to.
Pure.

Its keys are checked here, once and without the crypto library: a point that is not on the curve would otherwise come to
light at every attempt to send (RFC 8291, section 3.2; invalid-curve attacks need exactly such points).
"""

from __future__ import annotations

import base64
import binascii
from binascii import a2b_base64
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from fanout.plugin import AddressInvalid

__all__ = [
    "AESGCM",
    "Subscription",
    "application_server_key",
    "canonical",
    "ended_at",
    "is_public_key",
    "on_curve",
    "parse",
    "take_apart",
]

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
"""P-256: y^2 = x^3 - 3x + b modulo p (SEC 2, section 2.4.2). Its cofactor is 1, so every point on it will do."""

_MAX_URL = 2048
_MAX_TEXT = 8192
AESGCM = "aesgcm"
"""The encryption of the older draft (draft-ietf-webpush-encryption-04), of browsers such as KaiOS's and of old
servers."""

_HEAD = '{"endpoint":"'
_OLDER = '{"contentEncoding":"aesgcm","endpoint":"'
_TO_P256DH, _TO_AUTH, _END = b'","keys":{"p256dh":"', b'","auth":"', b'"}}'
_HEAD_SIZE = len(_HEAD)
_TAIL_SIZE = len(_TO_P256DH) + 87 + len(_TO_AUTH) + 22 + len(_END)
_BEFORE, _P256DH, _BETWEEN, _AUTH, _AFTER = (
    slice(20),
    slice(20, 107),
    slice(107, 117),
    slice(117, 139),
    slice(139, None),
)
_STANDARD = bytes.maketrans(b"-_", b"+/")
_HELP = "register what pushManager.subscribe() gives, as JSON.stringify(subscription) writes it"


class Subscription(NamedTuple):
    """A subscription, checked: its URL and the browser's public key (65 bytes) and secret (16 bytes). `older`: it wants
    aesgcm."""

    endpoint: str
    p256dh: bytes
    auth: bytes
    older: bool = False

    def __repr__(self) -> str:
        return "<Subscription, hidden>"


def parse(raw: str | Mapping[str, Any]) -> Subscription:
    """The subscription in the browser's JSON, as text or already decoded. Its `contentEncoding` is aes128gcm where it
    names none. Other members are ignored.

    Raises `AddressInvalid`, without the address in its text. The URL's host is not looked at here.
    """
    if isinstance(raw, str):
        if len(raw) > _MAX_TEXT:
            raise AddressInvalid(f"The subscription has more than {_MAX_TEXT} characters, so it is none: {_HELP}.")
        try:
            decoded = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise AddressInvalid(f"The subscription is not JSON: {_HELP}.") from None
    else:
        decoded = raw
    if not isinstance(decoded, Mapping):
        raise AddressInvalid(f"The subscription is not a JSON object: {_HELP}.")
    endpoint, keys = decoded.get("endpoint"), decoded.get("keys")
    if not isinstance(endpoint, str) or not 0 < len(endpoint) <= _MAX_URL or not _plain(endpoint):
        raise AddressInvalid(
            f"The subscription's endpoint is no URL of at most {_MAX_URL} printable ASCII characters: {_HELP}."
        )
    if not isinstance(keys, Mapping):
        raise AddressInvalid(f"The subscription has no keys: {_HELP}, not its endpoint alone.")
    p256dh, auth = _decoded(keys, "p256dh"), _decoded(keys, "auth")
    if len(p256dh) != 65 or p256dh[0] != 4 or not on_curve(p256dh):
        raise AddressInvalid(
            "The subscription's keys.p256dh is no uncompressed point of P-256 (65 bytes): it was damaged on its way here; "
            f"{_HELP}."
        )
    if len(auth) != 16:
        raise AddressInvalid(f"The subscription's keys.auth has {len(auth)} bytes, not 16: {_HELP}.")
    coding = decoded.get("contentEncoding")
    if coding not in (None, "", "aes128gcm", AESGCM):
        raise AddressInvalid(
            "The subscription's contentEncoding is neither aes128gcm nor aesgcm, and nothing else can be sent: leave it out."
        )
    return Subscription(endpoint, p256dh, auth, coding == AESGCM)


def ended_at(raw: str | Mapping[str, Any]) -> float | None:
    """When a parsed subscription ends, in UNIX seconds (`expirationTime`, which browsers give in milliseconds); None if
    it does not say."""
    decoded = orjson.loads(raw) if isinstance(raw, str) else raw
    expiration = decoded.get("expirationTime")
    return expiration / 1000 if isinstance(expiration, (int, float)) and not isinstance(expiration, bool) else None


def application_server_key(raw: str | Mapping[str, Any]) -> str | None:
    """The VAPID public key that a parsed subscription says it was made with, in base64url without padding; None if it
    does not say.

    `PushSubscription.toJSON` leaves it out, so a page that wants it known adds
    `subscription.options.applicationServerKey`.
    """
    decoded = orjson.loads(raw) if isinstance(raw, str) else raw
    named = decoded.get("applicationServerKey")
    return named.rstrip("=").translate(_URL_SAFE) if isinstance(named, str) and named else None


def is_public_key(text: str) -> bool:
    """Whether it is an uncompressed P-256 point in base64url without padding: an applicationServerKey."""
    if len(text) != 87:
        return False
    try:
        point = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        return False
    return point[:1] == b"\x04" and on_curve(point)


def canonical(subscription: Subscription) -> str:
    """The one text for a subscription: its URL and two keys, in this order, the keys in base64url without padding."""
    keys = {"p256dh": _text(subscription.p256dh), "auth": _text(subscription.auth)}
    older = {"contentEncoding": AESGCM} if subscription.older else {}
    return orjson.dumps({**older, "endpoint": subscription.endpoint, "keys": keys}).decode()


def take_apart(value: str) -> Subscription:
    """The subscription in a canonical text. Raises `ValueError` for any other.

    Its end has a fixed form, so it is cut rather than parsed: this is done for every attempt, and JSON would take four
    times as long.
    """
    tail = value[-_TAIL_SIZE:].encode().translate(_STANDARD)
    older = value.startswith(_OLDER)
    if (
        (older or value[:_HEAD_SIZE] == _HEAD)
        and tail[_BEFORE] == _TO_P256DH
        and tail[_BETWEEN] == _TO_AUTH
        and tail[_AFTER] == _END
    ):
        # Letters that are not of the alphabet are skipped, and then the sizes are wrong.
        p256dh, auth = a2b_base64(tail[_P256DH] + b"="), a2b_base64(tail[_AUTH] + b"==")
        if len(p256dh) == 65 and len(auth) == 16:
            return Subscription(value[len(_OLDER) if older else _HEAD_SIZE : -_TAIL_SIZE], p256dh, auth, older)
    raise ValueError("This is no subscription in the form that parse_address gives.")


def on_curve(point: bytes) -> bool:
    """Whether 04 || x || y is a point of P-256."""
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:65], "big")
    return x < _P and y < _P and (y * y - (x * x - 3) * x - _B) % _P == 0


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _decoded(keys: Mapping[str, Any], name: str) -> bytes:
    """Base64url, with or without padding; the other alphabet too, in which some libraries store the keys of the
    browser."""
    value = keys.get(name)
    if not isinstance(value, str) or not value.isascii() or len(value) > 200:
        raise AddressInvalid(f"The subscription's keys.{name} is missing or no text: {_HELP}.")
    text = value.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise AddressInvalid(f"The subscription's keys.{name} is not base64url: {_HELP}.") from None


_URL_SAFE = str.maketrans("+/", "-_")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
