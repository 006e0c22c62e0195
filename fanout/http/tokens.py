"""Access tokens that are fetched: cached to shortly before their end, renewed one at a time and off the path of any
send.

`TokenSource` knows nothing of OAuth: the fetch is injected, and so are the clock and the random source.
`oauth.fetch_token` is the usual fetcher.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Fetched", "Token", "TokenError", "TokenSource"]

BACKOFF_BASE = 1.0
BACKOFF_CAP = 60.0
_IN_TROUBLE = 10.0
"""Seconds between two tries to fetch, after failures: full jitter over a ceiling that doubles from the base to the
cap, or to `_IN_TROUBLE` where the endpoint did not refuse and no good token is left: all of a binding waits for one,
and one request in five seconds, on average, is no load."""

EARLY = 300.0
"""Seconds before its end at which a token is renewed; a tenth of its life where that is less."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer of a token endpoint: the token, and for how many seconds it is good."""

    text: str
    lifetime: float

    def __repr__(self) -> str:
        return f"Fetched(<hidden>, lifetime={self.lifetime:g})"


class Token:
    """One access token. Two are the same only if they are one object; `text` is a secret.

    Attributes:
        text: The token.
        renew_at: The time from which on another is fetched, in monotonic seconds.
        ends_at: The time from which on it is presented no more, in monotonic seconds.
    """

    __slots__ = ("ends_at", "renew_at", "text")

    def __init__(self, text: str, renew_at: float, ends_at: float) -> None:
        self.text = text
        self.renew_at = renew_at
        self.ends_at = ends_at

    def __repr__(self) -> str:
        return "<Token, hidden>"


class TokenError(Exception):
    """No token is to be had. The text is a sentence without secrets.

    `kind` is `misconfigured` where the endpoint refused the credential (trying again changes nothing), else
    `unavailable`. `after` is in how many seconds the next try is due, if known. `own` is True where the wait was ended
    here: that says nothing about the endpoint.
    """

    def __init__(
        self,
        kind: Literal["misconfigured", "unavailable"],
        text: str,
        after: float | None = None,
        *,
        own: bool = False,
    ) -> None:
        super().__init__(text)
        self.kind: Literal["misconfigured", "unavailable"] = kind
        self.after = after
        self.own = own


class TokenSource:
    """Keeps one token. Make it and use it on one event loop; close it, which ends a fetch that is under way.

    Args:
        fetch: Gets a new token, or raises `TokenError`; it must have a deadline of its own.
        monotonic: A clock of seconds that never jump.
        rng: The source of jitter.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Fetched]],
        *,
        monotonic: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._rng = rng
        self._token: Token | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: TokenError | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._closed = False

    def current(self) -> Token | None:
        """The token if it is good, without waiting; its renewal begins in the background when that is due. For the path
        of a send.

        Returns:
            The token; None where it has to be fetched (`get`).
        """
        token = self._token
        if token is None:
            return None
        now = self._monotonic()
        if now < token.renew_at:
            return token
        if now >= token.ends_at:
            return None
        self._start(now)
        return token

    async def get(self, within: float | None = None) -> Token:
        """A good token, fetched if need be. One fetch is under way, however many callers ask.

        After a failure the endpoint is left in peace for a while, during which the same error is raised at once.

        Args:
            within: Seconds to wait for the fetch; None for as long as it takes.

        Returns:
            The token.

        Raises:
            TokenError: No token is to be had.
        """
        token = self.current()
        if token is not None:
            return token
        self._start(self._monotonic())
        task = self._task
        if task is not None:
            # A caller that is cancelled here leaves the fetch to the others, and so does one that waits no longer.
            await asyncio.wait((task,), timeout=within)
        token = self.current()
        if token is not None:
            return token
        if self._closed:
            raise TokenError("unavailable", "The token source is closed.", own=True)
        if task is not None and not task.done():
            raise TokenError("unavailable", "no token within the deadline", own=True)
        failure = self._failure
        if failure is None:
            raise TokenError("unavailable", "The token that was fetched has ended already.")
        raise TokenError(failure.kind, str(failure), max(0.0, self._retry_at - self._monotonic()))

    async def renew(self, refused: Token, within: float | None = None) -> Token:
        """Another token than one that the gateway did not accept. If it has been replaced meanwhile, nothing is
        fetched: a thousand refusals of one token cost one fetch.

        Args:
            refused: The token that was refused.
            within: Seconds to wait for the fetch; None for as long as it takes.

        Returns:
            The token.

        Raises:
            TokenError: No token is to be had.
        """
        if self._token is refused:
            self._token = None
        return await self.get(within)

    async def aclose(self) -> None:
        """End the fetch that is under way, if any; its waiters get a `TokenError`. Idempotent."""
        self._closed = True
        self._token = None
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def _start(self, now: float) -> None:
        if self._task is None and not self._closed and now >= self._retry_at:
            self._task = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        try:
            fetched = await self._fetch()
            now = self._monotonic()
            early = min(EARLY, fetched.lifetime / 10)
            # Spread over a tenth of the margin, so that the processes of a fleet that started together do not renew as
            # one.
            renew_at = now + fetched.lifetime - early * self._rng.uniform(1.0, 1.1)
            self._token = None if self._closed else Token(fetched.text, renew_at, now + fetched.lifetime - early / 10)
            self._failure = None
            self._failures = 0
            self._retry_at = 0.0
        except TokenError as error:
            self._failed(error)
        except Exception as error:
            # The fetcher's own fault. Its text is not passed on: it may show the credential.
            self._failed(TokenError("unavailable", f"Fetching a token failed with {type(error).__name__}."))
        finally:
            self._task = None

    def _failed(self, error: TokenError) -> None:
        self._failures += 1
        now = self._monotonic()
        left = self._token.ends_at - now if self._token is not None else 0.0
        cap = max(_IN_TROUBLE, left) if error.kind == "unavailable" else BACKOFF_CAP
        ceiling = min(cap, BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(self._failures - 1, 30))
        wait = self._rng.uniform(0.0, ceiling)
        if error.after is not None:
            wait = max(wait, min(error.after, BACKOFF_CAP))
        self._failure = error
        self._retry_at = now + wait
