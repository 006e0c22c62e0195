"""The encryption of the older draft, `aesgcm`: its parameters stand in the headers, today's in the body. Pure but for
randomness.

draft-ietf-webpush-encryption-04 with draft-ietf-httpbis-encryption-encoding-03. KaiOS and servers that were never
updated know nothing else.
"""

from __future__ import annotations

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

from fanout_webpush.encryption import POINT_SIZE, hmac_sha256

__all__ = ["SALT_SIZE", "encrypt", "seal", "take_apart"]

SALT_SIZE = 16
_CURVE = SECP256R1()
_NO_PADDING = b"\0\0"


def encrypt(record: bytes, p256dh: bytes, auth: bytes) -> bytes:
    """Salt, public key and body, joined, under a new key; `record` is as for aes128gcm, with its delimiter. Raises
    `ValueError`."""
    return seal(record, p256dh, auth, generate_private_key(_CURVE), urandom(SALT_SIZE))


def seal(record: bytes, p256dh: bytes, auth: bytes, key: EllipticCurvePrivateKey, salt: bytes) -> bytes:
    """`encrypt` with a given key pair and salt, so that it can be held to another implementation. Use neither twice."""
    ours = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = key.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(_CURVE, p256dh))
    size = POINT_SIZE.to_bytes(2, "big")
    context = b"P-256\0" + size + p256dh + size + ours
    secret = hmac_sha256(hmac_sha256(auth, shared), b"Content-Encoding: auth\0\1")
    prk = hmac_sha256(salt, secret)
    cek = hmac_sha256(prk, b"Content-Encoding: aesgcm\0" + context + b"\1")[:16]
    nonce = hmac_sha256(prk, b"Content-Encoding: nonce\0" + context + b"\1")[:12]
    return salt + ours + AESGCM(cek).encrypt(nonce, _NO_PADDING + record[:-1], None)


def take_apart(sealed: bytes) -> tuple[bytes, bytes, bytes]:
    """Salt, public key and body."""
    return sealed[:SALT_SIZE], sealed[SALT_SIZE : SALT_SIZE + POINT_SIZE], sealed[SALT_SIZE + POINT_SIZE :]
