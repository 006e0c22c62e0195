"""The token endpoint: client credentials, on-behalf-of and refresh (RFC 6749; Microsoft's on-behalf-of flow after RFC
7523).

Without I/O: a form comes in, a status and a JSON object go out. Times are UNIX seconds.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

import jwt

from fanout.testing.issuer.keys import KeyRing
from fanout.testing.issuer.tokens import Style, app_claims, user_claims

__all__ = ["JWT_BEARER", "Client", "Desk"]

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_NOT_FOR_THE_API = {"openid", "profile", "email", "offline_access"}


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client. A client without a secret is public: users can sign in to it, and it can ask for nothing by
    itself."""

    id: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Grant:
    """The grant that a refresh token stands for."""

    user: str
    client: str
    audience: str
    scopes: tuple[str, ...]


class _Refusal(Exception):
    def __init__(self, error: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.error = error
        self.status = status


class Desk:
    """Mints tokens and answers requests for them. `issuer` is the value of `iss`; `audience` names the service."""

    def __init__(self, issuer: str, audience: str, keys: KeyRing, style: Style, now: Callable[[], float]) -> None:
        self.issuer = issuer
        self.audience = audience
        self.keys = keys
        self.style: Style = style
        self.now = now
        self.lifetime = 3600.0
        self.stated_lifetime: object = None
        self.clients: dict[str, Client] = {}
        self._refresh: dict[str, _Grant] = {}

    def mint(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims, and with the issuer and the times where they are not given."""
        now = int(self.now())
        ends = now + int(self.lifetime)
        base = {"iss": self.issuer, "iat": now, "nbf": now, "exp": ends, "jti": secrets.token_hex(8)}
        kind = {"typ": "at+jwt"} if self.style == "rfc9068" else {}
        return self.keys.current.sign({**base, **claims}, kind)

    def app_token(self, client: str, audience: str | None = None) -> str:
        """An app's own token."""
        return self.mint(app_claims(client, audience or self.audience, self.style))

    def user_token(self, user: str, client: str, audience: str | None, scopes: Sequence[str]) -> str:
        """A user's token."""
        return self.mint(user_claims(user, client, audience or self.audience, scopes, self.style))

    def revoke(self, user: str) -> None:
        """Make a user's refresh tokens worthless."""
        self._refresh = {token: grant for token, grant in self._refresh.items() if grant.user != user}

    def answer(self, form: Mapping[str, str], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Status and body for a request to the token endpoint (RFC 6749, sections 5.1 and 5.2)."""
        try:
            client = self._client(form, authorization)
            match form.get("grant_type"):
                case "client_credentials":
                    return 200, self._granted(self.app_token(client.id, self._audience(form)))
                case "refresh_token":
                    return 200, self._refreshed(client, form)
                case grant if grant == JWT_BEARER:
                    return 200, self._on_behalf(client, form)
                case _:
                    raise _Refusal("unsupported_grant_type", "No such grant_type here.")
        except _Refusal as refusal:
            return refusal.status, {"error": refusal.error, "error_description": str(refusal)}

    def _client(self, form: Mapping[str, str], authorization: str | None) -> Client:
        id, secret = form.get("client_id"), form.get("client_secret")
        if authorization is not None:
            try:
                name, _, word = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
            except ValueError:
                raise _Refusal("invalid_client", "The Authorization header is not Basic.", 401) from None
            id, secret = unquote_plus(name), unquote_plus(word)
        client = self.clients.get(id or "")
        if (
            client is None
            or client.secret is None
            or not hmac.compare_digest(client.secret.encode(), (secret or "").encode())
        ):
            raise _Refusal("invalid_client", "No such client, or a wrong secret.", 401)
        return client

    def _audience(self, form: Mapping[str, str]) -> str:
        """`resource` (RFC 8707, and Entra v1), `audience` (Auth0), or a scope `AUDIENCE/.default` (Entra v2)."""
        asked = form.get("resource") or form.get("audience")
        if asked is None:
            asked = next(
                (s.removesuffix("/.default") for s in form.get("scope", "").split() if s.endswith("/.default")),
                self.audience,
            )
        if asked != self.audience:
            raise _Refusal("invalid_target", "No such resource here.")
        return asked

    def _scopes(self, form: Mapping[str, str]) -> tuple[str, ...]:
        """The scopes as they stand in the token: without the audience before them, and without those of OpenID
        Connect."""
        asked = [scope.removeprefix(self.audience).removeprefix("/") for scope in form.get("scope", "").split()]
        return tuple(scope for scope in asked if scope and scope not in _NOT_FOR_THE_API)

    def _on_behalf(self, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
        if form.get("requested_token_use") != "on_behalf_of":
            raise _Refusal("invalid_request", "requested_token_use must be on_behalf_of.")
        user = self._user_of(form.get("assertion", ""), client)
        scopes = self._scopes(form)
        if not scopes:
            raise _Refusal("invalid_scope", "The scope names nothing of this service.")
        return self._for_user(_Grant(user, client.id, self.audience, scopes))

    def _user_of(self, assertion: str, client: Client) -> str:
        """The user of whose token the assertion is. It must be for the client that shows it, and a user's access
        token."""
        try:
            key = self.keys.find(jwt.get_unverified_header(assertion).get("kid"))
            if key is None:
                raise jwt.InvalidTokenError
            claims = jwt.decode(
                assertion,
                key.private.public_key(),
                algorithms=[key.algorithm],
                audience=client.id,
                issuer=self.issuer,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, ValueError):
            raise _Refusal("invalid_grant", "The assertion is no token of this issuer for this client.") from None
        if claims["exp"] <= self.now():
            raise _Refusal("invalid_grant", "The assertion has expired.")
        if "scp" not in claims and "scope" not in claims:
            raise _Refusal("invalid_grant", "The assertion is no access token of a user.")
        return str(claims["sub"] if self.style == "rfc9068" else claims["name"])

    def _refreshed(self, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
        grant = self._refresh.get(form.get("refresh_token", ""))
        if grant is None or grant.client != client.id:
            raise _Refusal("invalid_grant", "The refresh token is not valid (any more).")
        del self._refresh[form["refresh_token"]]
        return self._for_user(grant)

    def _for_user(self, grant: _Grant) -> dict[str, Any]:
        refresh = secrets.token_urlsafe(24)
        self._refresh[refresh] = grant
        token = self.user_token(grant.user, grant.client, grant.audience, grant.scopes)
        return {**self._granted(token), "refresh_token": refresh, "scope": " ".join(grant.scopes)}

    def _granted(self, token: str) -> dict[str, Any]:
        lifetime = int(self.lifetime) if self.stated_lifetime is None else self.stated_lifetime
        return {"token_type": "Bearer", "access_token": token, "expires_in": lifetime}
