"""An issuer's public keys (RFC 7517), and a signature held against them. Pure; PyJWT makes the keys and checks the
signatures.

A key is good for the algorithms of its own type and curve alone, so that no token can have an RSA key used as an HMAC
secret or a P-256 key for ES512. A key of a set that is private, symmetric, weak or for another purpose is passed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import InvalidKeyError

from fanout.config import TENANT

__all__ = ["Key", "KeySet", "KeySetUnusable", "parse_key_set", "verify"]

_NEEDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Type and curve of the key that an algorithm takes (RFC 7518, section 3.1; RFC 8037, section 3.1)."""

_PUBLIC: dict[str, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_ALGORITHMS = get_default_algorithms()
_MOST_KEYS = 64
_RSA_BITS = range(2048, 8193)
"""Fewer can be broken (RFC 7518, section 3.3); more only cost time."""


class KeySetUnusable(Exception):
    """The issuer's set holds no key that could be used. The text says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key. `print` is the SHA-256 of the key itself (RFC 7638): the same key under another id has the
    same."""

    kid: str | None
    algorithms: frozenset[str]
    print: bytes
    public: Any = field(repr=False)
    issuer: str | None = None
    """The only issuer whose tokens it proves, with `{tenantid}` for that of any tenant (Entra). None: its set's own."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer."""

    keys: tuple[Key, ...]
    prints: frozenset[bytes]

    def of(self, issuer: str, tenant: str) -> KeySet:
        """The keys that may prove a token with that `iss` and `tid`: a set that many tenants share has keys of single
        ones."""
        keys = tuple(key for key in self.keys if key.issuer is None or key.issuer.replace(TENANT, tenant) == issuer)
        return KeySet(keys, self.prints)

    def candidates(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        """The keys that may have signed a token with this header.

        Several where the issuer gave one id to several keys. A token without an id is held against a key only where the
        algorithm leaves no choice.
        """
        fitting = tuple(key for key in self.keys if algorithm in key.algorithms)
        if kid is not None:
            return tuple(key for key in fitting if key.kid == kid)
        return fitting if len(fitting) == 1 else ()

    def fits(self, algorithm: str) -> bool:
        """Whether some key is for this algorithm."""
        return any(algorithm in key.algorithms for key in self.keys)

    def knows(self, kid: str | None) -> bool:
        """Whether some key has this id, if only for another algorithm."""
        return kid is not None and any(key.kid == kid for key in self.keys)


def parse_key_set(body: bytes, algorithms: Collection[str]) -> KeySet:
    """The keys in a JWKS document that are for one of `algorithms`. Raises `KeySetUnusable`, for a set without any such
    key too."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise KeySetUnusable("the key set is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeySetUnusable("the key set has no array `keys`")
    if len(entries) > _MOST_KEYS:
        raise KeySetUnusable(f"the key set has over {_MOST_KEYS} keys")
    keys = tuple(_usable(entries, frozenset(algorithms)))
    if not keys:
        raise KeySetUnusable("the key set holds no key for the configured algorithms")
    return KeySet(keys, frozenset(key.print for key in keys))


def verify(keys: Collection[Key], algorithm: str, signed: bytes, signature: bytes) -> Key | None:
    """The key of `keys` that made the signature with `algorithm`; None if none did."""
    method = _ALGORITHMS[algorithm]
    for key in keys:
        if algorithm in key.algorithms and method.verify(signed, key.public, signature):
            return key
    return None


def _usable(entries: list[Any], wanted: frozenset[str]) -> Iterator[Key]:
    for entry in entries:
        key = _key(entry, wanted) if isinstance(entry, dict) else None
        if key is not None:
            yield key


def _key(entry: Mapping[str, Any], wanted: frozenset[str]) -> Key | None:
    kind, curve, kid = entry.get("kty"), entry.get("crv", ""), entry.get("kid")
    if not isinstance(kind, str) or kind not in _PUBLIC or not (kid is None or isinstance(kid, str)):
        return None
    purposes = entry.get("key_ops")
    if entry.get("use", "sig") != "sig" or not (
        purposes is None or (isinstance(purposes, list) and "verify" in purposes)
    ):
        return None
    own = entry.get("alg")
    algorithms = frozenset(
        name for name in wanted if _NEEDS[name] == (kind, "" if kind == "RSA" else curve) and own in (None, name)
    )
    # Only the public members are handed on: with the private ones the library would make a private key.
    public = {"kty": kind, **{name: entry.get(name) for name in _PUBLIC[kind]}}
    if not algorithms or not all(isinstance(value, str) for value in public.values()):
        return None
    try:
        made = _ALGORITHMS[min(algorithms)].from_jwk(public)
    except (InvalidKeyError, ValueError, TypeError):
        return None
    if isinstance(made, RSAPublicKey) and (made.key_size not in _RSA_BITS or made.public_numbers().e > 0xFFFFFFFF):
        return None
    thumb = hashlib.sha256(orjson.dumps(public, option=orjson.OPT_SORT_KEYS)).digest()
    issuer = entry.get("issuer")
    return Key(kid, algorithms, thumb, made, issuer if isinstance(issuer, str) else None)
