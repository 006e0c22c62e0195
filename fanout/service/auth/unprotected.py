"""A service without any credential configured: for trying it on one's own machine, where requests say themselves who they are.

The service must listen on loopback only then. That alone would leave it open to any web page in a browser on this machine, so a
request is taken only if it was addressed to loopback by name (a page that rebinds its own name to 127.0.0.1 keeps that name in
`Host`), not sent by a page of another origin, and not passed on by a proxy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import SplitResult, urlsplit

from fanout.core.urls import is_loopback
from fanout.service.auth.caller import SCOPE, Caller
from fanout.service.auth.errors import forbidden

__all__ = ["unprotected_caller"]

_PASSED_ON = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def unprotected_caller(headers: Mapping[str, str], apps: Collection[str]) -> Caller:
    """Who `X-Fanout-App` (else `default`) and `X-Fanout-User` (else nobody: the app itself) say it is.

    `headers` have names in lower case. Raises `AuthError` 403.
    """
    host = headers.get("host", "")
    if not is_loopback(_split(host).hostname or "") or any(name in headers for name in _PASSED_ON):
        raise forbidden(
            "unprotected",
            "This service knows no callers, so it serves its own machine only: configure [[service.issuers]] or [[service.keys]].",
        )
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise forbidden("origin", "This service knows no callers, so it serves no pages of other origins.")
    app = headers.get("x-fanout-app", "default")
    if app not in apps:
        raise forbidden("app", "There is no app of the name in X-Fanout-App.")
    user = headers.get("x-fanout-user")
    if user is None:
        return Caller(app, None, "unprotected", frozenset(), "app")
    if not user or len(user) > 512 or "\x00" in user:
        raise forbidden("user", "X-Fanout-User is a text of 1 to 512 characters.")
    return Caller(app, user, "unprotected", frozenset({SCOPE}), "delegated")


def _split(host: str) -> SplitResult:
    try:
        found = urlsplit(f"//{host}")
    except ValueError:
        return urlsplit("")
    return found if found.netloc == host and found.username is None else urlsplit("")
