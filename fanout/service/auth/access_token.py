"""A compact JWS taken apart, as strictly as its grammar allows. Nothing in it is proved yet.

The service parses a token here and nowhere else: the library is given the bytes that were signed, the key and the
algorithm, and never the token, so that no second reading of a header can differ from ours.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fanout.service.auth.errors import unauthorized

__all__ = ["TOKEN_LIMIT", "AccessToken", "parse"]

TOKEN_LIMIT = 16_384
"""Characters. Entra's longest, with 200 groups, have about 12,000."""

_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES = ("jwt", "at+jwt")
"""`typ` of an access token: RFC 7519, section 5.1, and RFC 9068, section 2.1. Logout tokens, DPoP proofs and others
have their own."""
_KID_LIMIT = 512


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The claims of a token. `signed` and `signature` are the parts that its key has to confirm."""

    algorithm: str
    kid: str | None
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def issuer(self) -> str:
        """The issuer that it names; "" where it names none that is usable."""
        found = self.claims.get("iss")
        return found if isinstance(found, str) else ""


def parse(token: str) -> AccessToken:
    """The token's parts (RFC 7515, section 7.1). Raises `AuthError` 401 for a text that is no acceptable JWT.

    `crit` is refused with any content, since no extension is understood here (section 4.1.11). `jku`, `jwk`, `x5u` and
    `x5c` are passed over: a token does not choose the key that proves it. Of a name that stands twice no reading is the
    right one.
    """
    if len(token) > TOKEN_LIMIT:
        raise unauthorized("too_large", f"The access token is over {TOKEN_LIMIT} characters.")
    found = _FORM.fullmatch(token)
    header = _object(found.group(1)) if found else None
    claims = _object(found.group(2)) if found else None
    signature = _decode(found.group(3)) if found else None
    if header is None or claims is None or signature is None:
        raise unauthorized("malformed", "The credential is not a JSON Web Token.")
    if "crit" in header or "b64" in header or "zip" in header:
        raise unauthorized("crit", "The access token has a critical extension, and none is understood here.")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or not (kid is None or (isinstance(kid, str) and len(kid) <= _KID_LIMIT)):
        raise unauthorized("malformed", "The access token's header is not that of a JSON Web Token.")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise unauthorized("type", "The credential is a JSON Web Token of another kind than an access token.")
    return AccessToken(algorithm, kid, claims, token.rpartition(".")[0].encode(), signature)


def _decode(part: str) -> bytes | None:
    """base64url without padding, in its one canonical form."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return None
    return data if base64.urlsafe_b64encode(data).rstrip(b"=").decode() == part else None


def _object(part: str) -> dict[str, Any] | None:
    data = _decode(part)
    if data is None:
        return None
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _unique(pairs: Collection[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("A name stands twice.")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON.")
