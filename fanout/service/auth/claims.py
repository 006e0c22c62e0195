"""The rights that an issuer's token gives. Pure: `now` is an argument, and the signature is checked elsewhere.

Which tokens are the app's own ("app-only") and which a user's ("delegated") no standard says, and a user's token must
never pass for the app's. So the rule believes explicit marks only, in this order:

1. `idtyp` (Entra): `app` is the app's own, `user` a user's; any other is refused.
2. `gty` is `client-credentials` (Auth0): the app's own.
3. The issuer's table says `app_tokens = "sub"`, so that no user can choose her `sub`: the app's own is a token whose
   `sub` is the client id (RFC 9068, section 2.2: Okta, Cognito and others), or the client id and `@clients` (Auth0);
   and one with neither `scp` nor `scope` whose `sub` is `oid` (Entra, an app's service principal), or that has neither
   `sub` nor the claim for the user.
4. One of the configured scopes stands in `scp` or `scope`: a user's, of any name.
5. Anything else is a user's token without the scope, and is refused (403).

A Keycloak service account has a `sub` of its own and a scope, so that by 5 it is refused, or by 4 is a user without
devices: give its client a mapper that adds the claim `idtyp` with the value `app`. Entra adds `idtyp` where the app's
manifest asks for that optional claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.config import IssuerSettings
from fanout.service.auth.caller import Caller
from fanout.service.auth.errors import forbidden, unauthorized

__all__ = ["SKEW", "check_claims", "decide_caller", "ends_at"]

SKEW = 60.0
"""Seconds by which the issuer's clock may differ from ours."""

_CLIENT_CLAIMS = ("azp", "appid", "client_id")
_OTHER_TOKENS = ("at_hash", "c_hash", "events")
"""Claims of ID tokens (OpenID Connect Core, section 3.3.2.11), which name the signed-in user to a client and give no
access, and of event tokens (RFC 8417). `nonce` is not among them: older Keycloaks put it into access tokens. An ID
token has no scope, so rule 6 refuses it.
"""
_USER_LIMIT = 512


def ends_at(claims: Mapping[str, Any]) -> float:
    """UNIX seconds from which a token is refused. `check_claims` has seen that `exp` is a number."""
    return float(claims["exp"]) + SKEW


def check_claims(claims: Mapping[str, Any], issuer: IssuerSettings, now: float) -> None:
    """Raise `AuthError` 401 for a token that is not of this issuer, not for this service, or not for this moment (UNIX
    seconds)."""
    if not issuer.names(str(claims.get("iss")), claims.get("tid")):
        raise unauthorized("issuer", "The access token is of an issuer that is not configured.")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise unauthorized("audience", "The access token names no audience.")
    if not set(named) & set(issuer.audiences):
        raise unauthorized("audience", "The access token is for another service: ask for this one's audience.")
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    for name, value in times.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not _is_time(value):
            raise unauthorized("malformed", f"The access token's {name} is no time.")
    if "exp" not in times:
        raise unauthorized("expired", "The access token has no end.")
    if now >= times["exp"] + SKEW:
        raise unauthorized("expired", "The access token has expired.")
    for name in ("nbf", "iat"):
        if name in times and times[name] > now + SKEW:
            raise unauthorized("not_yet", "The access token is not valid yet.")
    if any(name in claims for name in _OTHER_TOKENS):
        raise unauthorized("type", "The credential is an ID token or an event: an access token is wanted.")


def decide_caller(claims: Mapping[str, Any], issuer: IssuerSettings) -> Caller:
    """The caller, by the rule above. Raises `AuthError`: 403 for a client or scope that is not allowed, 401 without any
    user."""
    client = _client(claims, issuer)
    app = issuer.apps.get(client)
    if app is None:
        raise forbidden("client", "The access token's client is assigned to no app of this service.")
    scopes = _scopes(claims)
    granted = not scopes.isdisjoint(issuer.scopes)
    if _is_app_only(claims, client, issuer, granted):
        return Caller(app, None, client, scopes, "app", ends_at=claims.get("exp"))
    if not granted:
        text = f"A call on behalf of a user needs the scope {issuer.scopes[0]}."
        if claims.get("sub") in _as_subject(client):
            text += " An app's own token needs idtyp app or gty client-credentials, or app_tokens sub in the issuer's table."
        raise forbidden("scope", text, scope=" ".join(issuer.scopes))
    user = claims.get(issuer.user_claim)
    if not isinstance(user, str) or not user or "\x00" in user or len(issuer.user_prefix + user) > _USER_LIMIT:
        raise unauthorized("user", "The access token names no user in the claim that is configured for it.")
    return Caller(app, issuer.user_prefix + user, client, scopes, "delegated", ends_at=claims.get("exp"))


def _client(claims: Mapping[str, Any], issuer: IssuerSettings) -> str:
    names = (issuer.app_claim,) if issuer.app_claim is not None else _CLIENT_CLAIMS
    found = next((claims[name] for name in names if name in claims), None)
    if not isinstance(found, str) or not found:
        raise unauthorized("client", "The access token names no client.")
    return found


def _as_subject(client: str) -> tuple[str, str]:
    """The `sub` of an app's own token."""
    return client, f"{client}@clients"


def _is_app_only(claims: Mapping[str, Any], client: str, issuer: IssuerSettings, granted: bool) -> bool:
    match claims.get("idtyp"):
        case None:
            pass
        case "app":
            return True
        case "user":
            return False
        case _:
            raise unauthorized("type", "The access token is neither a user's nor an app's.")
    if claims.get("gty") == "client-credentials":
        return True
    if issuer.app_tokens != "sub":
        return False
    subject = claims.get("sub")
    if subject in _as_subject(client):
        return True
    if granted or "scp" in claims or "scope" in claims:
        return False
    return issuer.user_claim not in claims if subject is None else subject == claims.get("oid")


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scp` (Entra a text, Okta an array) or `scope` (RFC 8693, section 4.2: a text with spaces)."""
    found: set[str] = set()
    for name in ("scp", "scope"):
        value = claims.get(name)
        words = value.split(" ") if isinstance(value, str) else value
        if isinstance(words, list):
            found.update(word for word in words if isinstance(word, str) and word)
    return frozenset(found)


def _is_time(value: float) -> bool:
    return 0 <= value < 1e12  # no NaN, and no integer that is larger than any float
