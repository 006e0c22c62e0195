"""VAPID (RFC 8292): the sender's identity, proved to a push service by an ES256 token for its origin, signed once and
used for hours."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from fanout.plugin import ConfigurationError, Secret

__all__ = ["LIFETIME", "MIN_AGE", "SLOT", "VapidKey", "VapidPair", "VapidTokens", "b64url", "key_id", "make_vapid_keys"]

LIFETIME = 12 * 3600
"""Seconds from the start of a token's slot to its `exp`. RFC 8292, section 2, allows 24 h; the rest is room for wrong
clocks."""

SLOT = 6 * 3600
"""All processes with one key use one token per origin in each stretch of so many seconds of UNIX time, and then
another."""

MIN_AGE = 3600
"""Seconds for which a token is kept in every case: Apple wants no new one for an origin more often than once an
hour."""

_CURVE = ec.SECP256R1()
_ES256 = ec.ECDSA(SHA256())
_RFC6979 = ec.ECDSA(SHA256(), deterministic_signing=True)
"""Makes the same signature of the same claims everywhere. Needs OpenSSL 3.2; with an older one each process has tokens
of its own."""

_SHAPE = "use the file that `fanout keys vapid` makes (PEM, P-256), or the private key of such a pair in base64url (43 characters)."


def b64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_id(public: str) -> str:
    """The name of the key of this applicationServerKey in the `kind` of an endpoint's address."""
    return b64url(sha256(base64.urlsafe_b64decode(public + "=" * (-len(public) % 4))).digest())[:8]


@dataclass(frozen=True, slots=True)
class VapidPair:
    """A new identity: `private_pem` for the server (a secret), `application_server_key` for the page that
    subscribes."""

    private_pem: Secret
    application_server_key: str


def make_vapid_keys() -> VapidPair:
    """A new pair. Every existing subscription belongs to the key it was made with: make one pair, and keep it."""
    key = ec.generate_private_key(_CURVE)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return VapidPair(Secret(pem, "a new VAPID pair"), VapidKey(key).public)


class VapidKey:
    """A key pair. `public` is the applicationServerKey (87 characters); `id` names it in the `kind` of an endpoint's
    address.

    The id is not a secret: 8 characters of the public key's hash, enough to tell apart the few keys that one binding
    ever had.
    """

    __slots__ = ("_key", "id", "public")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public = b64url(point)
        self.id = key_id(self.public)

    @classmethod
    def load(cls, secret: Secret, name: str = "vapid_private_key") -> VapidKey:
        """From any form that senders of Web Push write (see `_der_or_scalar`). Raises `ConfigurationError`, without the
        key in its text."""
        place = f"{name} ({secret.origin})" if secret.origin and secret.origin != name else name
        try:
            raw = _der_or_scalar(secret.reveal())
            if len(raw) == _SCALAR:
                key: object = ec.derive_private_key(int.from_bytes(raw, "big"), _CURVE)
            else:
                key = load_der_private_key(raw, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigurationError(f"{place} is no VAPID private key: {_SHAPE}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigurationError(f"{place} is a key of another kind than P-256: {_SHAPE}")
        return cls(key)

    def sign(self, origin: str, subject: str, expires_at: int) -> str:
        """The value of `Authorization` (RFC 8292, section 3) for `origin` until `expires_at` (UNIX seconds)."""
        claims = orjson.dumps({"aud": origin, "exp": expires_at, "sub": subject})
        signed = b64url(b'{"typ":"JWT","alg":"ES256"}') + "." + b64url(claims)
        try:
            signature = self._key.sign(signed.encode(), _RFC6979)
        except UnsupportedAlgorithm:
            signature = self._key.sign(signed.encode(), _ES256)
        r, s = decode_dss_signature(signature)
        # JOSE wants the two numbers side by side (RFC 7518, section 3.4), OpenSSL gives them in DER.
        return f"vapid t={signed}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}, k={self.public}"

    def verifies(self, header: str) -> bool:
        """Whether `header` was signed by this key."""
        token = header.removeprefix("vapid t=").partition(",")[0]
        signed, _, signature = token.rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        try:
            self._key.public_key().verify(der, signed.encode(), _ES256)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"<VapidKey {self.id}>"


def _der_or_scalar(text: str) -> bytes:
    """A private key as DER (PKCS #8 or SEC 1), or the 32 bytes of its number. Raises `ValueError`.

    PEM, also in one line or with "\\n" for its line ends, as environment variables hold it, and behind other blocks
    (openssl); base64 or base64url of either (py-vapid, pywebpush, web-push-php, web-push for Node); the JSON and the
    text that web-push prints; a JWK.
    """
    text = text.replace("\\r", "").replace("\\n", "\n").strip().strip("\"'").strip()
    pem = _PEM.search(text)
    if pem is not None:
        return _decoded(pem[2])
    if text.startswith("{"):
        values = orjson.loads(text)
        text = next(
            (values[name] for name in ("privateKey", "private_key", "d") if isinstance(values.get(name), str)), ""
        )
    else:
        printed = _PRINTED.search(text)
        text = text if printed is None else printed[1]
    raw = _decoded(text)
    if len(raw) == _SCALAR + 1 and raw[0] == 0:
        raw = raw[1:]  # a number as ASN.1 writes it
    if len(raw) <= _SCALAR and len(raw) != _SCALAR:
        raise ValueError("too short for a key")
    return raw


def _decoded(text: str) -> bytes:
    """Base64 of either alphabet, with or without padding."""
    bare = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


_SCALAR = 32
_PEM = re.compile(r"-----BEGIN ((?:EC )?PRIVATE KEY)-----([A-Za-z0-9+/=\s]+)-----END \1-----")
_PRINTED = re.compile(r"(?i)private key\s*[:=]\s*([A-Za-z0-9_+/=-]+)")
_URL_SAFE = str.maketrans("+/", "-_")


@dataclass(frozen=True, slots=True)
class _Token:
    """Used from `since` (earlier only where the clock was set back so far that `exp` would lie beyond 24 h) until
    `until`."""

    header: str
    since: float
    until: float
    signed_at: float


class VapidTokens:
    """The tokens of one key, by origin. Signing costs some 50 us once in six hours and origin, so it happens where a
    token is missed.

    A background task was considered and left out: it would have to know which origins are still in use, to save
    nothing. Slots and deterministic signatures make the tokens of all workers, and of one that was restarted, the same
    text: to Apple they are one token, where each would otherwise bring its own.
    """

    def __init__(self, key: VapidKey, subject: str, *, most: int = 4096) -> None:
        self.key = key
        self._subject = subject
        self._most = most
        self._tokens: dict[str, _Token] = {}

    def header(self, origin: str, now: float) -> str:
        """The value of `Authorization` for this origin; the same text until it is renewed. `now` is UNIX seconds."""
        token = self._tokens.get(origin)
        if token is None or not token.since <= now < token.until:
            slot = now // SLOT * SLOT
            token = self._sign(origin, now, int(slot) + LIFETIME, slot + SLOT)
        return token.header

    def older(self, header: str) -> tuple[str, str]:
        """The same token as the draft said it that goes with aesgcm: the values of `Authorization` and, in part, of
        `Crypto-Key`."""
        token, _, key = header.removeprefix("vapid t=").partition(", k=")
        return f"WebPush {token}", f"p256ecdsa={key}"

    def renew(self, origin: str, now: float) -> bool:
        """A push service called the token bad. Whether there is a new one now: not if the last is younger than an
        hour."""
        token = self._tokens.get(origin)
        if token is not None and abs(now - token.signed_at) < MIN_AGE:
            return False
        self._sign(origin, now, int(now) + LIFETIME, now + SLOT)
        return True

    def _sign(self, origin: str, now: float, expires_at: int, until: float) -> _Token:
        if len(self._tokens) >= self._most and origin not in self._tokens:
            del self._tokens[next(iter(self._tokens))]
        header = self.key.sign(origin, self._subject, expires_at)
        # A token that was signed shortly before the end of its slot is kept for its hour, which its `exp` allows.
        token = _Token(header, now - LIFETIME + MIN_AGE, max(until, now + MIN_AGE), now)
        self._tokens[origin] = token
        return token
