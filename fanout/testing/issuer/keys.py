"""The issuer's keys: the newest signs, and all that were not dropped are published."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

__all__ = ["KeyRing", "SigningKey"]

_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_METHODS = get_default_algorithms()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair and the algorithm that it is used with."""

    kid: str
    algorithm: str
    private: Any = field(repr=False)

    @classmethod
    def make(cls, kid: str, algorithm: str = "RS256", *, bits: int = 2048) -> SigningKey:
        """A new pair for the algorithm; `bits` is for RSA."""
        private: Any
        if algorithm in _CURVES:
            private = ec.generate_private_key(_CURVES[algorithm])
        elif algorithm == "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        else:
            private = rsa.generate_private_key(65537, bits)
        return cls(kid, algorithm, private)

    def public_jwk(self) -> dict[str, Any]:
        """Its public half as a key set has it (RFC 7517, section 4)."""
        public = _METHODS[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"]}

    def sign(self, claims: Mapping[str, Any] | bytes, header: Mapping[str, Any] | None = None) -> str:
        """A token. `header` is added to `alg` and `kid`, or replaces them; a value None takes one out."""
        payload = claims if isinstance(claims, bytes) else orjson.dumps(claims)
        full = {"typ": "JWT", "alg": self.algorithm, "kid": self.kid, **(header or {})}
        heading = orjson.dumps({name: value for name, value in full.items() if value is not None})
        signed = f"{_part(heading)}.{_part(payload)}"
        return f"{signed}.{_part(_METHODS[self.algorithm].sign(signed.encode(), self.private))}"


class KeyRing:
    """The keys in use. The signing key and the published keys may be changed at any time. The first key is `first`,
    else a new one."""

    def __init__(self, algorithm: str = "RS256", first: SigningKey | None = None) -> None:
        self._algorithm = first.algorithm if first is not None else algorithm
        self._numbers = itertools.count(1 if first is None else 2)
        self.published: list[SigningKey] = [first] if first is not None else []
        self.current = first if first is not None else self.add()

    def add(self, algorithm: str | None = None) -> SigningKey:
        """Publish another key, which does not sign yet."""
        key = SigningKey.make(f"key-{next(self._numbers)}", algorithm or self._algorithm)
        self.published.append(key)
        return key

    def rotate(self, algorithm: str | None = None) -> SigningKey:
        """Publish another key and sign with it from now on. The former stays published."""
        self.current = self.add(algorithm)
        return self.current

    def drop(self, kid: str) -> None:
        """Take a key out of the key set."""
        self.published = [key for key in self.published if key.kid != kid]

    def find(self, kid: str | None) -> SigningKey | None:
        """The published key of that id."""
        return next((key for key in self.published if key.kid == kid), None)

    def jwks(self) -> dict[str, Any]:
        """The key set (RFC 7517, section 5)."""
        return {"keys": [key.public_jwk() for key in self.published]}


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
