"""How the simulated push services judge a VAPID token (RFC 8292), with Apple's stricter rules for Apple."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from fanout_webpush.vendors import Vendor

__all__ = ["TokenCheck"]

_HEADER = re.compile(r"vapid t=([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+), ?k=([A-Za-z0-9_-]+)")
_SUBJECT = re.compile(r"(mailto:[^\s<>]+@[^\s<>]+|https://[^\s<>]+)")
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class _Known:
    sound: bool
    audience: object
    expires_at: float
    subject: str
    key: str


class TokenCheck:
    """Remembers the tokens that it has verified, as the real services must to keep up."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self.changed: list[float] = []
        """When each new token for Apple was first seen (UNIX seconds): more than one an hour is too many."""

    def wrong(self, vendor: Vendor, authorization: str, origin: str, now: float) -> str:
        """The condition that the header breaks at a service of this origin, "" for none. `now` is UNIX seconds."""
        if not authorization:
            return "token missing"
        found = self._known.get(authorization)
        if found is None:
            found = self._known[authorization] = _verify(authorization)
            if vendor is Vendor.APPLE:
                self.changed.append(now)
        if not found.sound or not now - 60 < found.expires_at <= now + _DAY:
            return "token"
        if found.audience != origin:
            return "audience"
        if vendor is Vendor.APPLE and ("localhost" in found.subject or not _SUBJECT.fullmatch(found.subject)):
            return "token"
        if vendor is Vendor.MOZILLA and not found.subject:
            return "token"
        return ""

    def key(self, authorization: str) -> str:
        """The public key of a header that was found to be in order."""
        return self._known[authorization].key


def _verify(authorization: str) -> _Known:
    bad = _Known(False, None, 0.0, "", "")
    found = _HEADER.fullmatch(authorization)
    if found is None:
        return bad
    token, named = found.groups()
    try:
        header, claims, signature = (_decode(part) for part in token.split("."))
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _decode(named))
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        public.verify(der, token.rpartition(".")[0].encode(), ec.ECDSA(SHA256()))
        described, claimed = orjson.loads(header), orjson.loads(claims)
        sound = described["alg"] == "ES256" and len(signature) == 64
        return _Known(sound, claimed["aud"], float(claimed["exp"]), str(claimed.get("sub", "")), named)
    except (InvalidSignature, ValueError, KeyError, TypeError):
        return bad


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
