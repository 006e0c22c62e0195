"""The other end: browsers as the simulator knows them. They subscribe, and decrypt messages as strictly as the RFCs
allow.

Written from RFC 8188 and RFC 8291 a second time, with the library's HKDF, so that an error in `encryption` is not
hidden by the same error here.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["Browser", "Undecryptable", "decode"]

_CURVE = ec.SECP256R1()
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_TAG = 16


class Undecryptable(ValueError):
    """A body that a browser would throw away, and why."""


def decode(body: bytes, input_key: Callable[[bytes], bytes]) -> list[bytes]:
    """The records of an aes128gcm body (RFC 8188, section 2), without padding. `input_key` gives the keying material
    for a key id.

    Raises `Undecryptable`.
    """
    if len(body) < 21 or len(body) < 21 + body[20]:
        raise Undecryptable("the header is cut off")
    salt, size, key_id = body[:16], int.from_bytes(body[16:20], "big"), body[21 : 21 + body[20]]
    if size < 18:
        raise Undecryptable(f"the record size is {size}, and must be at least 18")
    key = input_key(key_id)
    cek = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(key)
    base = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(key)
    cipher = AESGCM(cek)
    payload = body[21 + len(key_id) :]
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    if not parts:
        raise Undecryptable("there is no record")
    records = []
    for number, part in enumerate(parts):
        nonce = (int.from_bytes(base, "big") ^ number).to_bytes(12, "big")
        try:
            padded = cipher.decrypt(nonce, part, None) if len(part) > _TAG else b""
        except InvalidTag:
            raise Undecryptable("a record was encrypted under other keys, or damaged") from None
        text = padded.rstrip(b"\0")
        last = number == len(parts) - 1
        if text[-1:] != (b"\x02" if last else b"\x01"):
            raise Undecryptable("a record ends with the wrong delimiter")
        records.append(text[:-1])
    return records


@dataclass(slots=True)
class Browser:
    """One subscription, with its secrets. `endpoint` is its URL, `server_key` the VAPID key (base64url) that it was
    made with."""

    endpoint: str
    server_key: str
    behaviour: str = "good"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(_CURVE), repr=False)
    auth: bytes = field(default_factory=lambda: os.urandom(16), repr=False)

    @classmethod
    def seeded(cls, endpoint: str, server_key: str, behaviour: str, seed: str) -> Self:
        """One whose secrets follow from `seed`, the same in every process."""
        scalar = int.from_bytes(sha256(f"fanout browser {seed}".encode()).digest(), "big") % (_ORDER - 1) + 1
        auth = sha256(f"fanout auth {seed}".encode()).digest()[:16]
        return cls(endpoint, server_key, behaviour, ec.derive_private_key(scalar, _CURVE), auth)

    @property
    def public(self) -> bytes:
        """p256dh, 65 bytes."""
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def subscription(self) -> dict[str, Any]:
        """The PushSubscription as the browser's JSON has it."""
        return {
            "endpoint": self.endpoint,
            "expirationTime": None,
            "keys": {"p256dh": _text(self.public), "auth": _text(self.auth)},
        }

    def decrypt(self, body: bytes) -> bytes:
        """The plaintext of a message (RFC 8291, section 3.4 and 4). Raises `Undecryptable`."""

        def input_key(key_id: bytes) -> bytes:
            if len(key_id) != 65:
                raise Undecryptable(f"the key id has {len(key_id)} bytes, and must be a point of 65")
            try:
                sender = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, key_id)
            except ValueError:
                raise Undecryptable("the key id is no point of P-256") from None
            shared = self.key.exchange(ec.ECDH(), sender)
            return HKDF(SHA256(), 32, self.auth, b"WebPush: info\0" + self.public + key_id).derive(shared)

        records = decode(body, input_key)
        if len(records) > 1:
            raise Undecryptable("there is more than one record, which RFC 8291, section 4, forbids")
        return records[0]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
