"""Access tokens for the service: as the app itself (`ClientCredentials`), or on behalf of a user (`OnBehalfOf`).

A source is asked for a token before each call, and told when the service has refused one:

    token = await source.token()
    if status == 401:
        source.invalidate(token)        # and once more, with what `token` gives then

It keeps a token until shortly before its end, and only one request for a new token is under way, for any number of
callers.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol, Self

from fanout.client.token_endpoint import (
    Granted,
    SignInNeeded,
    TokenEndpoint,
    TokenError,
    TokenRefused,
    TokenUnavailable,
)
from fanout.core.secret import Secret
from fanout.errors import UsageError

__all__ = [
    "BearerSource",
    "ClientCredentials",
    "OnBehalfOf",
    "SignInNeeded",
    "TokenError",
    "TokenRefused",
    "TokenUnavailable",
    "UserTokens",
]

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EARLY = 300.0
"""Seconds before its end at which a token is replaced; a tenth of its life where that is less."""
_REFUSED_GAP = 10.0
"""Seconds for which a new token is kept though the service refuses it: another token of the same kind would be refused
as well."""
_BACKOFF_CAP = 30.0


class BearerSource(Protocol):
    """The interface of a source of tokens, as the client of the service uses it."""

    async def token(self) -> str:
        """A token that should be good now.

        Returns:
            The token.

        Raises:
            TokenError: No token can be had.
        """
        ...

    def invalidate(self, token: str) -> None:
        """The service has answered 401 to this token: give out another.

        Args:
            token: The token that was refused.
        """
        ...


class _Kept:
    """One token, and how the next one is got: `exchange` is given the last refresh token, and must have a deadline of
    its own."""

    def __init__(
        self,
        exchange: Callable[[str | None], Awaitable[Granted]],
        monotonic: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._exchange = exchange
        self._monotonic = monotonic
        self._rng = rng
        self._granted: Granted | None = None
        self._refresh: str | None = None
        self._since = self._renew_at = self._ends_at = self._retry_at = 0.0
        self._failures = 0
        self._error: TokenError | None = None
        self._flight: asyncio.Task[None] | None = None

    async def token(self) -> str:
        now = self._monotonic()
        granted = self._granted
        if granted is not None and now < self._renew_at:
            return granted.token
        if self._flight is None and (self._error is None or now >= self._retry_at):
            self._flight = asyncio.get_running_loop().create_task(self._renew())
        if self._flight is not None:
            await asyncio.wait((self._flight,))  # a caller that is cancelled here leaves the exchange to the others
        granted = self._granted
        if granted is not None and self._monotonic() < self._ends_at:
            return granted.token  # perhaps the old token: it is good for a while although no new token can be had
        error = self._error
        if error is None:
            raise TokenUnavailable("The source of tokens is closed.")
        raise error.again(max(0.0, self._retry_at - self._monotonic()))

    def invalidate(self, token: str) -> None:
        granted = self._granted
        if granted is not None and granted.token == token and self._monotonic() - self._since >= _REFUSED_GAP:
            self._granted = None

    async def aclose(self) -> None:
        self._granted = self._error = None
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,))

    async def _renew(self) -> None:
        try:
            granted = await self._exchange(self._refresh)
        except TokenError as error:
            self._failed(error)
        except Exception as error:
            # A fault of ours. Its text is not passed on: it may show the form.
            self._failed(TokenUnavailable(f"Asking for a token failed with {type(error).__name__}."))
        else:
            self._failures, self._error = 0, None
            self._granted, self._refresh = granted, granted.refresh or self._refresh
            self._since = self._monotonic()
            self._ends_at = self._since + granted.lifetime
            self._renew_at = self._ends_at - min(_EARLY, granted.lifetime / 10)
        finally:
            self._flight = None

    def _failed(self, error: TokenError) -> None:
        self._failures += 1
        wait = self._rng.uniform(0.5, 1.0) * min(_BACKOFF_CAP, 2.0 ** min(self._failures - 1, 10))
        wait = max(wait, min(error.after or 0.0, _BACKOFF_CAP))
        self._error = error
        self._retry_at = float("inf") if isinstance(error, SignInNeeded) else self._monotonic() + wait


class _Source:
    """A source that keeps one token."""

    def __init__(self, kept: _Kept) -> None:
        self._kept = kept

    async def token(self) -> str:
        """A token that should be good now.

        Returns:
            The token.

        Raises:
            TokenError: No token can be had; of a user `SignInNeeded`, once the refresh token fails too.

        Example:
            ```python
            token = await source.token()
            ```
        """
        return await self._kept.token()

    def invalidate(self, token: str) -> None:
        """The service has answered 401 to a token: the next one is fetched, once for all callers.

        Not if it is less than ten seconds old: another token would fare no better, and the caller gets to see the 401.

        Args:
            token: The token that was refused.

        Example:
            ```python
            source.invalidate(token)
            ```
        """
        self._kept.invalidate(token)


class _Closing:
    """An async context manager that closes on exit."""

    aclose: Callable[[], Awaitable[None]]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class ClientCredentials(_Source, _Closing):
    """Tokens of the app itself (RFC 6749, section 4.4). It posts with the subscription's UNSID, or to `/v1`. An async
    context manager; use it on one event loop.

    Args:
        token_url: The issuer's token endpoint.
        client_id: The app's id there.
        client_secret: The app's secret there.
        scope: The permission to ask for (Entra v2: `https://push.example.com/.default`); None for none.
        resource: The service to ask for (Entra v1, RFC 8707); None for none.
        extra: Further fields that the issuer wants (Auth0: `{"audience": …}`); None for none.
        ca_file: Certificates (PEM) that are trusted besides the system's; None for none.
        proxy: The egress proxy, `http://[USER:PASSWORD@]HOST:PORT`, or "environment"; None for none.
        monotonic: The clock, of seconds that never jump, in tests.
        rng: The source of jitter, in tests.

    Raises:
        UsageError: `token_url` is without TLS and not on loopback, or `ca_file` or `proxy` cannot be used.

    Example:
        ```python
        async with ClientCredentials(url, id, secret, scope="https://push.example.com/.default") as source:
            async with AppClient("https://push.example.com", source) as client:
                await client.send(Notification(title="Hello"), "user:alice")
        ```
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        resource: str | None = None,
        extra: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
        proxy: Secret | str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        self._form = {**form, **_given(scope=scope, resource=resource), **(extra or {})}
        self._endpoint = TokenEndpoint(token_url, ca_file, proxy)
        super().__init__(_Kept(self._exchange, monotonic, rng or random.Random()))

    def __repr__(self) -> str:
        return f"<ClientCredentials of {self._form['client_id']}>"

    async def aclose(self) -> None:
        """End requests under way and close the connection. Idempotent.

        Example:
            ```python
            await source.aclose()
            ```
        """
        await self._kept.aclose()
        await self._endpoint.aclose()

    async def _exchange(self, refresh: str | None) -> Granted:
        return await self._endpoint.ask(self._form)


class UserTokens(_Source):
    """The tokens for one user, made by `OnBehalfOf.for_user`. Once the user's refresh token fails too, `token` raises
    `SignInNeeded`."""

    def __repr__(self) -> str:
        return "<UserTokens>"


class OnBehalfOf(_Closing):
    """Tokens on behalf of users who signed in to the app (Microsoft's on-behalf-of flow; the assertion grant of RFC
    7523). An async context manager; use it on one event loop.

    The user's client sends its own access token to the app; the app swaps it here for one to the service, with a
    refresh token by which it goes on without the user.

    Args:
        token_url: The issuer's token endpoint.
        client_id: The app's id there.
        client_secret: The app's secret there.
        scope: The permission to ask for, such as `https://push.example.com/Notifications.ReadWrite.CreatedByApp`.
        users: The number of users that are remembered at most; the least recently asked for goes first.
        ca_file: Certificates (PEM) that are trusted besides the system's; None for none.
        proxy: The egress proxy, `http://[USER:PASSWORD@]HOST:PORT`, or "environment"; None for none.
        monotonic: The clock, of seconds that never jump, in tests.
        rng: The source of jitter, in tests.

    Raises:
        UsageError: `users` is below one, `token_url` is without TLS and not on loopback, or `ca_file` or `proxy` cannot
            be used.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str,
        users: int = 1_000,
        ca_file: Path | None = None,
        proxy: Secret | str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        if users < 1:
            raise UsageError(f"users is {users}: set at least 1.")
        self._form = {"client_id": client_id, "client_secret": client_secret, "scope": scope}
        self._most = users
        self._endpoint = TokenEndpoint(token_url, ca_file, proxy)
        self._monotonic = monotonic
        self._rng = rng or random.Random()
        self._users: OrderedDict[bytes, _Kept] = OrderedDict()

    def __repr__(self) -> str:
        return f"<OnBehalfOf of {self._form['client_id']}, {len(self._users)} users>"

    def for_user(self, assertion: str) -> UserTokens:
        """The tokens for the user of an access token.

        Users are known by the whole assertion and not by the user's name in it: a made-up token with that name would be
        exchanged for the user's own. The returned source may be kept, and goes on by its refresh token after the
        assertion has expired.

        Args:
            assertion: The access token that the user's client has sent. It must be for this app, and the app must have
                verified it.

        Returns:
            The source of the user's tokens.

        Raises:
            UsageError: `assertion` is empty.

        Example:
            ```python
            client = UserClient("https://push.example.com", on_behalf_of.for_user(assertion))
            ```
        """
        if not assertion:
            raise UsageError("The assertion is empty: give the access token that the user's client has sent.")
        digest = hashlib.sha256(assertion.encode()).digest()
        kept = self._users.get(digest)
        if kept is None:
            kept = _Kept(self._exchange_for(assertion), self._monotonic, self._rng)
            self._users[digest] = kept
            if len(self._users) > self._most:
                self._users.popitem(last=False)
        self._users.move_to_end(digest)
        return UserTokens(kept)

    async def aclose(self) -> None:
        """Forget the users, end requests under way and close the connection. Idempotent.

        Example:
            ```python
            await on_behalf_of.aclose()
            ```
        """
        while self._users:
            await self._users.popitem()[1].aclose()
        await self._endpoint.aclose()

    def _exchange_for(self, assertion: str) -> Callable[[str | None], Awaitable[Granted]]:
        first = {"grant_type": _JWT_BEARER, "assertion": assertion, "requested_token_use": "on_behalf_of", **self._form}

        async def exchange(refresh: str | None) -> Granted:
            if refresh is not None:
                try:
                    return await self._endpoint.ask(
                        {"grant_type": "refresh_token", "refresh_token": refresh, **self._form}
                    )
                except SignInNeeded:
                    pass  # it was used up or revoked; the assertion may still be good
            return await self._endpoint.ask(first)

        return exchange


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
