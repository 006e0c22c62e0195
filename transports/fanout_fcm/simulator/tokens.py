"""Google's OAuth 2.0 token endpoint: takes an assertion that a service account signed, gives an access token.

The rules are those of "Using OAuth 2.0 for server to server applications", RFC 7523 (the assertion) and RFC 6749 (the
answers).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs
from uuid import uuid4

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from fanout.testing.simulator import Answer, Http1Simulator, Reply, Request

__all__ = ["PATH", "TokenEndpoint"]

PATH = "/token"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AUDIENCE = "https://oauth2.googleapis.com/token"
_SCOPES = {"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}
_SKEW = 300


class TokenEndpoint(Http1Simulator):
    """Believes the holder of `key`. Faults are named by an OAuth error (`invalid_grant`) or by `unavailable`.

    `lifetime` is the lifetime of new tokens, in seconds.
    """

    name: ClassVar[str] = "fcm-tokens"

    def __init__(
        self,
        key: rsa.RSAPublicKey,
        email: str,
        key_id: str,
        *,
        folder: Path,
        host: str,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(folder=folder, host=host, clock=clock)
        self._key = key
        self._email = email
        self._key_id = key_id
        self._given: dict[str, float] = {}
        self.lifetime = 3600

    @property
    def endpoint(self) -> str:
        """Where to post the assertion."""
        return self.url + PATH

    def settings(self) -> dict[str, Any]:
        return {"token_url": self.endpoint, "ca_file": self.ca_file}

    def knows(self, token: str) -> bool:
        """Whether this access token was given out and still lives."""
        return self._given.get(token, 0.0) > self.clock()

    def revoke(self) -> None:
        """Forget every token that was given out."""
        self._given.clear()

    def issue(self) -> str:
        """A new access token: also for another endpoint that gives out Google's tokens, such as a metadata server."""
        now = self.clock()
        self._given = {token: end for token, end in self._given.items() if end > now}
        token = f"ya29.simulated-{uuid4().hex}{uuid4().hex}"
        self._given[token] = now + self.lifetime
        return token

    def handle(self, request: Request) -> Answer:
        if (request.method, request.path) != ("POST", PATH):
            return Reply(404, reason="not_found")
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return self.error("invalid_request", request)
        form = parse_qs(request.body.decode("latin-1"))
        if form.get("grant_type") != [_GRANT]:
            return self.error("unsupported_grant_type", request)
        wrong = self._wrong(form.get("assertion", [""])[0])
        if wrong:
            return self.error(wrong, request)
        body = {"access_token": self.issue(), "expires_in": self.lifetime, "token_type": "Bearer"}
        return Reply(200, {"content-type": "application/json"}, orjson.dumps(body))

    def error(self, reason: str, request: Request) -> Reply:
        if reason == "unavailable":
            return Reply(503, {"content-type": "text/plain"}, b"backend error", reason=reason)
        body = orjson.dumps({"error": reason, "error_description": "Refused by the simulator."})
        return Reply(400, {"content-type": "application/json"}, body, reason=reason)

    def _wrong(self, assertion: str) -> str:
        """The OAuth error, or an empty text."""
        try:
            signed, _, signature = assertion.rpartition(".")
            header, claims = (_object(part) for part in signed.split("."))
            self._key.verify(_decode(signature), signed.encode(), PKCS1v15(), SHA256())
            issued, ends = claims["iat"], claims["exp"]
        except (InvalidSignature, KeyError, TypeError, ValueError):
            return "invalid_grant"
        now = self.clock()
        right = (
            header.get("alg") == "RS256"
            and header.get("kid") == self._key_id
            and claims.get("iss") == self._email
            and claims.get("aud") == _AUDIENCE
            and isinstance(issued, int)
            and isinstance(ends, int)
            and issued <= now + _SKEW
            and now < ends <= issued + 3600
        )
        if not right:
            return "invalid_grant"
        return "" if set(str(claims.get("scope", "")).split()) & _SCOPES else "invalid_scope"


def _object(part: str) -> dict[str, Any]:
    values = orjson.loads(_decode(part))
    if not isinstance(values, dict):
        raise ValueError("not an object")
    return values


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
