"""API keys: one app's standing credential, for installations without an OAuth issuer.

A key is `fak_ID_SECRET`: a prefix that secret scanners can look for, a public id to find it by, and 256 random bits.
The service keeps the SHA-256 of the whole key and not the key. A fast hash is right here: slow ones (scrypt, Argon2)
make guessing a password dear, but there is no guessing 256 random bits, and a slow hash per request would be a way to
overload the service.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from hmac import compare_digest

from fanout.core.secret import Secret

__all__ = ["API_KEY_PREFIX", "ApiKey", "hash_of", "key_id", "matches", "new_api_key"]

API_KEY_PREFIX = "fak_"
"""No access token of an issuer begins so: a JWT is base64url of a text that begins with `{`, which is `ey`."""

_FORM = re.compile(r"fak_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A new key. `key` is shown once and kept by the caller alone; `id` and `hash` are for the configuration."""

    id: str
    key: Secret
    hash: str = field(repr=False)


def new_api_key() -> ApiKey:
    """A key of 256 bits from the operating system's generator."""
    id = secrets.token_hex(6)
    key = f"{API_KEY_PREFIX}{id}_{secrets.token_urlsafe(32)}"
    return ApiKey(id, Secret(key, f"API key {id}"), hash_of(key))


def hash_of(key: str) -> str:
    """The stored form of a key: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def key_id(key: str) -> str | None:
    """The id in a presented key; None for a text that has not the form of one."""
    found = _FORM.fullmatch(key)
    return found.group(1) if found else None


def matches(key: str, hash: str) -> bool:
    """Whether `key` is the one of that hash, in a time that does not depend on how much of it fits."""
    return compare_digest(hash_of(key), hash)
