"""For programs of one's own on one's own machine, where the host said `unprotected=True`: a request itself names its
caller.

The other end of the connection must be this machine, and nothing may have passed the request on: no header that a proxy
sets, no HTTP/1.0, which nginx speaks by default. The name in `Host` must be this machine's, or any web page in a
browser here could rebind its own name to 127.0.0.1; and a page of another origin is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from fanout.core.peer import peer_of
from fanout.core.urls import is_loopback
from fanout.service.auth.caller import SCOPE, Caller
from fanout.service.auth.errors import forbidden
from fanout.service.request import Request, set_by_proxies

__all__ = ["LoopbackCallers"]


class LoopbackCallers:
    """Believes `X-Fanout-App` (else `default`) and `X-Fanout-User` (else no user: the app itself). `apps` names the
    apps."""

    def __init__(self, apps: Collection[str]) -> None:
        self._apps = frozenset(apps)

    async def authenticate(self, request: Request, /) -> Caller:
        """The caller of a request. Raises `AuthError` 403."""
        host = _header(request, b"host") or ""
        here = is_loopback(peer_of(request.direct)) or request.direct == "::1"
        if (
            not here
            or set_by_proxies(request.headers)
            or request.version in ("0.9", "1.0")
            or not is_loopback(urlsplit(f"//{host}").hostname or "")
        ):
            raise forbidden(
                "unprotected",
                "This service knows no callers, so it serves its own machine only, and nothing through a proxy: configure [[service.keys]] "
                "(fanout keys api) or [[service.issuers]].",
            )
        origin = _header(request, b"origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise forbidden("origin", "This service knows no callers, so it serves no pages of other origins.")
        app = _header(request, b"x-fanout-app") or "default"
        if app not in self._apps:
            raise forbidden("app", "There is no app of the name in X-Fanout-App.")
        user = _header(request, b"x-fanout-user")
        if user is None:
            return Caller(app, None, "unprotected", frozenset(), "app")
        if not user or len(user) > 512 or "\x00" in user:
            raise forbidden("user", "X-Fanout-User is a text of 1 to 512 characters.")
        return Caller(app, user, "unprotected", frozenset({SCOPE}), "delegated")

    async def aclose(self) -> None:
        """There is nothing to let go of."""


def _header(request: Request, name: bytes) -> str | None:
    value = request.headers.get(name)
    return None if value is None else value.decode("latin-1")
