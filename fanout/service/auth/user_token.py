"""User tokens: an app signs them for its own users, where there is no OAuth issuer to do it.

The app's own server knows the signed-in user. It gives the web page a token that says so for some minutes, and the page
reads that user's feed with it:

    token = user_token(secret, "default", "alice", ttl=900)

A token is `fut_ID.PAYLOAD.MAC`, where the payload is base64url of `{"app", "user", "iat", "exp"}` and the MAC is
HMAC-SHA-256, by the user key that the app and the service share, over everything before the last dot. So any language
makes one with its standard library. Why a MAC and not a signature: a holder of the key can speak for every user of that
app and of no other, and in such an installation service and app are often one process; a pair of keys would add a
library on the app's side. Why not a JWT: HS256 would then stand beside an issuer's public keys, which is how one is
taken for the other. Here the prefix alone says which check is made.

The API key is not used for this: the service keeps only its hash, and a hash that could sign would be as good as the
key. For the same reason the user key that is made into the database (`fanout keys add --kind signer`) signs with
Ed25519 (RFC 8032), and the database holds its public half alone: such a key begins with `fsk_`, its last 43 characters
are the 32 bytes of the seed, and the signature stands in the place of the MAC.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fanout.core.secret import Secret
from fanout.errors import UsageError

__all__ = [
    "MAX_LIFE",
    "USER_TOKEN_PREFIX",
    "UserKey",
    "new_signer",
    "new_user_key",
    "proof_of",
    "read_signed_token",
    "read_user_token",
    "token_key_id",
    "user_key_id",
    "user_token",
]

USER_TOKEN_PREFIX = "fut_"
MAX_LIFE = 86_400.0
"""Seconds that a user token may live: a page that is open longer asks its server for another."""

_SECRET = re.compile(r"f(?:us|sk)_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_SIGNER = "fsk_"
_TOKEN = re.compile(r"fut_([0-9a-f]{12})\.([A-Za-z0-9_-]{1,4096})\.([A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{86})")
_PROOF = "ed25519:"
_CLAIMS = {"app": str, "user": str, "iat": int, "exp": int}


@dataclass(frozen=True, slots=True)
class UserKey:
    """A new key to sign user tokens with. `secret` is for the app's server and for the configuration of the service."""

    id: str
    secret: Secret


def new_user_key() -> UserKey:
    """A key of 256 bits from the operating system's generator."""
    id = secrets.token_hex(6)
    return UserKey(id, Secret(f"fus_{id}_{secrets.token_urlsafe(32)}", f"user key {id}"))


def new_signer() -> UserKey:
    """A key of which the database holds the public half alone."""
    id, seed = secrets.token_hex(6), secrets.token_bytes(32)
    return UserKey(id, Secret(f"{_SIGNER}{id}_{_encode(seed)}", f"user key {id}"))


def proof_of(signer: UserKey) -> str:
    """The stored form of `new_signer`'s key: `ed25519:` and the public key, base64url."""
    return _PROOF + _encode(_private(signer.secret).public_key().public_bytes_raw())


def user_key_id(secret: Secret) -> str:
    """The id of a user key. Raises `UsageError` for a text that is none."""
    found = _SECRET.fullmatch(secret.reveal())
    if found is None:
        raise UsageError("The secret is no user key: make one with `fanout keys api --kind signer`.")
    return found.group(1)


def token_key_id(token: str) -> str | None:
    """The id of the key that a token says it is signed by; None for a text that has not the form of one."""
    found = _TOKEN.fullmatch(token)
    return found.group(1) if found else None


def user_token(secret: Secret | str, app: str, user: str, ttl: float = 900.0, *, now: float | None = None) -> str:
    """A token with which a client acts for one user. Give it to that user alone.

    Args:
        secret: A user key's secret.
        app: The app.
        user: The user's id.
        ttl: The token's life in seconds, a day at most.
        now: The present time, in UNIX seconds, in tests; None for the machine's.

    Returns:
        The token.

    Raises:
        UsageError: `secret` is no user key, `app` or `user` is empty, or `ttl` is not from a second to a day.

    Example:
        ```python
        token = user_token(new_user_key().secret, "default", "alice", ttl=900)
        ```
    """
    secret = Secret(secret) if isinstance(secret, str) else secret
    id = user_key_id(secret)
    if not app or not _is_user(user):
        raise UsageError("Name one app, and one user of 1 to 512 characters without NUL.")
    if not 1 <= ttl <= MAX_LIFE:
        raise UsageError(f"ttl is {ttl!r}: give a user token 1 to {MAX_LIFE:g} seconds.")
    issued = int(time.time() if now is None else now)
    claims = {"app": app, "user": user, "iat": issued, "exp": issued + int(ttl)}
    payload = _encode(json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode())
    signed = f"{USER_TOKEN_PREFIX}{id}.{payload}"
    proof = _private(secret).sign(signed.encode()) if secret.reveal().startswith(_SIGNER) else _mac(secret, signed)
    return f"{signed}.{_encode(proof)}"


def read_user_token(token: str, secret: Secret) -> tuple[str, str, int, int] | None:
    """(app, user, issued at, ends at) of a token that this key signed; None for any other. The times are not judged."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    signed, _, mac = token.rpartition(".")
    if not hmac.compare_digest(_encode(_mac(secret, signed)), mac):
        return None
    return _claims(found.group(2))


def read_signed_token(token: str, proof: str) -> tuple[str, str, int, int] | None:
    """As `read_user_token`, of a token that the key of `proof_of` signed."""
    found = _TOKEN.fullmatch(token)
    if found is None or not proof.startswith(_PROOF):
        return None
    signed, _, signature = token.rpartition(".")
    try:
        public = Ed25519PublicKey.from_public_bytes(_decode(proof.removeprefix(_PROOF)))
        public.verify(_decode(signature), signed.encode())
    except (ValueError, InvalidSignature):
        return None
    return _claims(found.group(2))


def _claims(payload: str) -> tuple[str, str, int, int] | None:
    try:
        claims: Any = json.loads(_decode(payload))
    except (ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(claims, dict) or any(type(claims.get(name)) is not kind for name, kind in _CLAIMS.items()):
        return None
    if not _is_user(claims["user"]):
        return None
    return claims["app"], claims["user"], claims["iat"], claims["exp"]


def _is_user(user: str) -> bool:
    return 0 < len(user) <= 512 and "\x00" not in user


def _mac(secret: Secret, signed: str) -> bytes:
    return hmac.digest(secret.reveal().encode(), signed.encode(), hashlib.sha256)


def _private(secret: Secret) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_decode(secret.reveal()[len(f"{_SIGNER}0123456789ab_") :]))


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
