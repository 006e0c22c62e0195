"""The encryption of a push message for one browser: aes128gcm (RFC 8188) with the keys of RFC 8291. Pure but for the
system's randomness.

The elliptic-curve work (a new key pair and one exchange per message) is nearly all of the cost and cannot be shared
between messages: RFC 8291, section 2.1, wants a key pair of its own for each. So only the work around it is made short:
HMAC by hand costs about half of `hmac.digest`, and `hmac.digest` less than the library's HKDF class.
"""

from __future__ import annotations

from hashlib import sha256
from os import urandom

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = [
    "AUTH_SIZE",
    "BODY_LIMIT",
    "DELIMITER",
    "MAX_PLAINTEXT",
    "OVERHEAD",
    "POINT_SIZE",
    "encrypt",
    "hmac_sha256",
    "seal",
]

BODY_LIMIT = 4096
"""Bytes of an encrypted body that every push service must take (RFC 8030, section 7.2); more is refused with 413."""

OVERHEAD = 16 + 4 + 1 + 65 + 1 + 16
"""The bytes that encryption adds: salt, record size, key id length, key id (RFC 8188, section 2.1), delimiter and
authentication tag."""

MAX_PLAINTEXT = BODY_LIMIT - OVERHEAD
"""3993 bytes, in the single record that RFC 8291, section 4, allows."""

DELIMITER = b"\x02"
"""Ends the plaintext of the last record (RFC 8188, section 2); the caller appends it once per notification."""

POINT_SIZE = 65
AUTH_SIZE = 16

_CURVE = SECP256R1()
_ECDH = ECDH()
_POINT = (Encoding.X962, PublicFormat.UncompressedPoint)
_SIZES = BODY_LIMIT.to_bytes(4, "big") + bytes((POINT_SIZE,))
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_KEY_INFO = b"WebPush: info\0"
_CEK_INFO = b"Content-Encoding: aes128gcm\0\1"
_NONCE_INFO = b"Content-Encoding: nonce\0\1"


def encrypt(record: bytes, p256dh: bytes, auth: bytes) -> bytes:
    """The body for the browser whose public key (65 bytes) and secret (16 bytes) these are, under a new key and salt.

    `record` is the plaintext with `DELIMITER` at its end (padding, if any, follows the delimiter). Raises `ValueError`
    for a key that is no point of the curve.
    """
    return seal(record, p256dh, auth, generate_private_key(_CURVE), urandom(16))


def seal(record: bytes, p256dh: bytes, auth: bytes, key: EllipticCurvePrivateKey, salt: bytes) -> bytes:
    """`encrypt` with a given key pair and salt, so that it can be held to the vectors of the RFCs. Use neither
    twice."""
    ours = key.public_key().public_bytes(*_POINT)
    shared = key.exchange(_ECDH, EllipticCurvePublicKey.from_encoded_point(_CURVE, p256dh))
    # RFC 8291, section 3.4, then RFC 8188, section 2.2. Each expansion is one block of HKDF, hence the \1 at the end.
    ikm = hmac_sha256(hmac_sha256(auth, shared), _KEY_INFO + p256dh + ours + b"\1")
    prk = hmac_sha256(salt, ikm).ljust(64, b"\0")
    inner, outer = prk.translate(_INNER), prk.translate(_OUTER)
    cek = sha256(outer + sha256(inner + _CEK_INFO).digest()).digest()[:16]
    nonce = sha256(outer + sha256(inner + _NONCE_INFO).digest()).digest()[:12]
    return salt + _SIZES + ours + AESGCM(cek).encrypt(nonce, record, None)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) for a key of at most 64 bytes."""
    block = key.ljust(64, b"\0")
    return sha256(block.translate(_OUTER) + sha256(block.translate(_INNER) + message).digest()).digest()
