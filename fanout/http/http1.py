"""The HTTP/1.1 client: WNS, Web Push hosts without HTTP/2, and token endpoints.

It gives the same `Response` and raises the same `RequestFailed` as `H2Pool`, so that a transport treats both alike.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Self

from fanout.core.proxy import Egress, direct
from fanout.http.dial import Resolver, resolve
from fanout.http.http1_session import Session
from fanout.http.http1_values import Http1Answers, Http1Settings
from fanout.http.response import RequestFailed, Response

__all__ = ["Http1Client"]


class Http1Client:
    """Requests over a bounded pool of kept-alive connections per host. An async context manager; closing twice is
    harmless.

    No redirect is followed, no proxy, cookie or password file of the environment used, no answer decompressed.
    `resolver` finds a host's addresses (a `GuardedResolver` for addresses that clients supply); the connection goes to
    one of the addresses that it returned, and the certificate must be for the host's name. `ssl_context` should offer
    `http/1.1` alone. `settings` are limits and times. `clock` gives monotonic seconds, best those that pass while the
    machine sleeps. `egress` says through which proxy a host is reached: by its name, or by an address that `resolver`
    has judged where one is given.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext,
        settings: Http1Settings | None = None,
        resolver: Resolver | None = None,
        clock: Callable[[], float] = monotonic,
        egress: Egress = direct,
    ) -> None:
        self.settings = settings or Http1Settings()
        self._context = ssl_context
        self._resolver = resolver or resolve
        self._clock = clock
        self._egress = egress
        self._session: Session | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; requests that are under way fail with `closed`."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    def retire(self) -> None:
        """Replace every connection: requests under way are awaited, and no other goes over the connections that are
        open now."""
        if self._session is not None:
            self._session.retire()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        timeout: float | None = None,
        fresh: bool = False,
        patience: float | None = None,
    ) -> Response:
        """One request, tried once; a GET a second time where a kept connection turns out to be closed.

        An answer whose body breaks off is returned with the part that came: its status says whether a push was taken,
        and the rest is dropped with the connection.

        Args:
            method: The method, such as `POST`.
            url: The URL in canonical form (as `GuardedUrl.url` is), since it is not changed in any way.
            headers: The header fields.
            body: The body.
            timeout: Seconds for connecting and the answer, in place of the settings' `request_timeout`.
            fresh: Whether it must go over a new connection; or over one that answered within the last second, where the
                host has shown that it answers on connections that were used before.
            patience: Seconds to wait before that, at most, for one of our own connections to be free: then it fails as
                an event of our own. None: half of `timeout`.

        Returns:
            The answer.

        Raises:
            RequestFailed: No answer came; `sent` is "no" where no connection came about, "unknown" once there was one.
        """
        if timeout is not None and timeout <= 0:
            raise RequestFailed("no", "timeout", own=True)
        session = self._session
        if session is None:
            if self._closed:
                raise RequestFailed("no", "closed", own=True)
            session = self._session = Session(self._context, self.settings, self._resolver, self._clock, self._egress)
        return await session.request(method, url, headers, body, timeout, fresh=fresh, patience=patience)

    def start(
        self,
        answers: Http1Answers,
        method: str,
        origin: str,
        targets: Sequence[str],
        headers: Mapping[str, str],
        own: tuple[str, Sequence[str]],
        body: bytes = b"",
        *,
        fresh: bool = False,
    ) -> Sequence[int]:
        """Send requests that are alike together, as far as there are idle connections at this moment.

        Args:
            answers: The receiver of the answers to the requests that were sent, never before this returns.
            method: The method, such as `POST`.
            origin: Scheme and authority, as they stand in the URLs of `request`.
            targets: Path and query of each request, in canonical form.
            headers: The header fields that all of them have.
            own: The name of a header field that each request has a value of its own for, and these values.
            body: The body of each.
            fresh: As for `request`.

        Returns:
            The indices of those that were not sent: `request` may wait, and connect.

        Raises:
            ValueError: A target or a header field is none. Nothing was sent.
        """
        if self._session is None:
            return range(len(targets))
        return self._session.start(answers, method, origin, targets, headers, own, body, fresh=fresh)
