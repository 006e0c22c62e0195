"""Access tokens of one binding. `TokenSource` decides when to fetch, and which token is used meanwhile:

it renews about five minutes early, one fetch at a time and off the path of any send, and an old token serves as long as
it is valid. How a token is got is a grant's: a service account's key signs for it, or it comes with the credentials
that Google's libraries would find.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fanout.plugin import (
    ConfigurationError,
    Context,
    Fetched,
    Http1Client,
    Http1Settings,
    Response,
    TokenError,
    TokenSource,
)
from fanout_fcm.defaults import find, grant_of, quota_project
from fanout_fcm.grants import Grant, ServiceAccountGrant
from fanout_fcm.settings import FcmSettings
from fanout_fcm.signer import LIFETIME, SCOPE, Signer

if TYPE_CHECKING:
    import ssl

__all__ = ["LIFETIME", "Credentials", "Signer"]


class Credentials:
    """The access token of one binding, and the HTTP client that fetches it. Raises `ConfigurationError` for a
    credential that cannot be used."""

    def __init__(self, settings: FcmSettings, context: Context, ssl_context: ssl.SSLContext) -> None:
        self._settings = settings
        self.quota_project = ""
        self._grant: Grant | None = None
        if settings.auth == "service_account":
            self._grant = ServiceAccountGrant(Signer(settings.account), settings.token_endpoint)
        else:
            self._default()
        self._clock = context.clock
        deadline = min(10.0, settings.request_timeout)
        limits = Http1Settings(connections=1, request_timeout=deadline, connect_timeout=deadline)
        clock = context.clock.monotonic
        self._client = Http1Client(ssl_context=ssl_context, settings=limits, clock=clock, egress=settings.egress)
        self._near = Http1Client(ssl_context=ssl_context, settings=limits, clock=clock)
        self.tokens = TokenSource(self._fetch, monotonic=context.clock.monotonic, rng=context.rng)

    def retire(self) -> None:
        """Fetch over no connection that is open now."""
        self._client.retire()
        self._near.retire()

    async def aclose(self) -> None:
        """End a fetch that is under way and close the connection. Idempotent."""
        await self.tokens.aclose()
        await self._client.aclose()
        await self._near.aclose()

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        # In the clear are only the metadata server and others beside this machine: no proxy leads to them, or should
        # see their answers.
        client = self._near if url.startswith("http://") else self._client
        return await client.request(method, url, headers, body)

    async def _fetch(self) -> Fetched:
        try:
            grant = self._grant or self._default()
        except ConfigurationError as error:
            raise TokenError("misconfigured", str(error)) from None
        return await grant.fetch(self._ask, self._clock.now(), SCOPE)

    def _default(self) -> Grant:
        """How tokens are got without a key of our own. Looked for anew at each fetch, for the last source may have been
        replaced."""
        settings = self._settings
        secret = settings.credentials if settings.credentials is not None else find(os.environ, Path.home())
        self.quota_project = quota_project(secret)
        return grant_of(secret, os.environ, token_url=settings.token_url, iam_url=settings.iam_url)
