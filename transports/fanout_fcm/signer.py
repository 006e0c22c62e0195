"""Assertions signed with a service account's key (RS256): "Using OAuth 2.0 for server to server applications" and RFC
7523."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import orjson

from fanout.plugin import ConfigurationError
from fanout_fcm.credential import GOOGLE_TOKEN_URL, ServiceAccount

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["JWT_BEARER", "LIFETIME", "SCOPE", "Signer"]

LIFETIME = 3600
"""Seconds from `iat` to `exp`: the most that Google takes."""
_CLOCK_SLACK = 30
"""Seconds by which `iat` lies back, so that a clock slightly ahead of Google's signs nothing of the future."""
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Signer:
    """Makes assertions for one service account. Raises `ConfigurationError` for a key that cannot be loaded."""

    def __init__(self, account: ServiceAccount) -> None:
        self._account = account
        self._key = _load(account)
        header = {"alg": "RS256", "typ": "JWT", "kid": account.key_id}
        self._header = _encode(orjson.dumps(header))

    def __repr__(self) -> str:
        return "<Signer of a service account>"

    def assertion(self, now: float, scope: str = SCOPE) -> str:
        """A signed assertion for `now` (UNIX seconds) and `scope`. Signing takes about a millisecond, once an hour."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        issued = int(now) - _CLOCK_SLACK
        claims = {
            "iss": self._account.email,
            "scope": scope,
            # Google's own address also where `token_url` leads to another: it names for whom the assertion is meant.
            "aud": GOOGLE_TOKEN_URL,
            "iat": issued,
            "exp": issued + LIFETIME,
        }
        signed = self._header + b"." + _encode(orjson.dumps(claims))
        return (signed + b"." + _encode(self._key.sign(signed, PKCS1v15(), SHA256()))).decode()


def _load(account: ServiceAccount) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(account.private_key.reveal().encode(), None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < 2048:
        origin = account.private_key.origin
        raise ConfigurationError(
            f"service_account{f' ({origin})' if origin else ''} has no usable RSA key of 2,048 bits or more under private_key: "
            "make a new one in the Firebase console and use the file unchanged."
        )
    return key


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
