"""The part of the HTTP/1.1 client that needs aiohttp: its session, set up for pushes, and its errors in our words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from yarl import URL

from fanout.core.proxy import Egress
from fanout.http.dial import DialFailed, Origin, Resolver, Way, dial, resolve
from fanout.http.http1_connection import Handler, NoAnswerCame, Wire
from fanout.http.http1_values import Http1Response, Http1Settings
from fanout.http.response import RequestFailed, Response

__all__ = ["Connector", "Session"]

_NO_EXTRAS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would add. Gateways ignore or refuse headers that they did not ask for."""


_FRESH = 1.0
"""Seconds for which an answer makes a connection fresh (`Delivery.fresh`)."""
_MOST_HOSTS = 10_000
_TICK = 0.1
"""Seconds between two looks at the deadlines: their precision."""
_STALL = 0.5
"""A look that comes so many seconds late shows that the process was stopped or its loop blocked: bytes that came
meanwhile are read first."""


@dataclass(slots=True, eq=False)
class _Attempt:
    """How far one request has come, and until when (in the loop's seconds) its `task` may wait.

    A context manager around the steps before the request is written: `unsent` stays true when that fails. `queued` is
    true while it waits for one of our own connections: at most `patience` seconds, and the gateway has the whole
    `limit` from then on.
    """

    task: asyncio.Task[Any]
    deadline: float
    limit: float
    patience: float
    fresh: bool
    cancelling: int
    handler: Handler | None = None
    key: Any = None
    unsent: bool = False
    queued: bool = False
    expired: bool = False

    def __enter__(self) -> None:
        self.unsent = True

    def __exit__(self, kind: object, *rest: object) -> None:
        self.unsent = kind is not None

    def was_expiry(self) -> bool:
        """Whether a cancellation that has just been caught was the deadline's alone. Takes it back if it was."""
        return self.expired and self.task.uncancel() <= self.cancelling


_attempt: ContextVar[_Attempt] = ContextVar("_attempt")


class Connector(aiohttp.BaseConnector):
    """aiohttp's book of connections, which are made by `dial`; it decides which of them may carry a request.

    It notes, too, when a request waits for its connection: nothing of it can have reached the gateway then.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        settings: Http1Settings,
        resolver: Resolver,
        clock: Callable[[], float],
        egress: Egress,
    ) -> None:
        super().__init__(limit=0, limit_per_host=settings.connections, keepalive_timeout=settings.keep_alive)
        self._context = context
        self._settings = settings
        self._resolver = resolver
        self._clock = clock
        self._egress = egress
        # Hosts that have answered a second request on a connection, and failed none since.
        self._reusing: set[Any] = set()
        self._dialling: set[asyncio.Future[Wire]] = set()
        self._retired_at = float("-inf")

    def retire(self) -> None:
        """The open connections carry no further request."""
        self._retired_at = self._clock()
        for each in self._conns.values():
            for idle, _ in each:
                idle.close()

    async def connect(self, req: Any, *args: Any, **kwargs: Any) -> Any:
        while True:
            connection = await super().connect(req, *args, **kwargs)
            handler = cast("Handler", connection.protocol)
            attempt = _attempt.get()
            if not handler.requests or self._serves(handler, req.connection_key, fresh=attempt.fresh):
                handler.begin()
                attempt.handler, attempt.key = handler, req.connection_key
                return connection
            connection.close()

    def _serves(self, handler: Handler, key: Any, *, fresh: bool) -> bool:
        """Whether a connection that was used before may be used again."""
        idle = handler.idle()
        if handler.should_close or idle > self._settings.keep_alive or handler.opened_at <= self._retired_at:
            return False
        return not fresh or (idle <= _FRESH and key in self._reusing)

    async def stop_dialling(self) -> None:
        """A request that waits for a new connection waits no longer."""
        for dialling in self._dialling:
            dialling.cancel()
        if self._dialling:
            await asyncio.wait(set(self._dialling))

    def answered(self, attempt: _Attempt) -> None:
        """A request was answered: where it was not the first on its connection, the host keeps connections."""
        if attempt.handler is not None and attempt.handler.requests > 1:
            if len(self._reusing) >= _MOST_HOSTS:
                self._reusing.clear()
            self._reusing.add(attempt.key)

    def unanswered(self, attempt: _Attempt) -> None:
        """A request got no answer: neither will those get one that are idle, are older, and have not answered since it
        was sent."""
        failed = attempt.handler
        if failed is None:
            return
        if failed.requests > 1 and failed.unanswered:
            self._reusing.discard(attempt.key)
        for idle, _ in list(self._conns.get(attempt.key, ())):
            handler = cast("Handler", idle)
            if handler.opened_at <= failed.opened_at and handler.answered_at <= failed.began_at:
                handler.close()

    async def _create_connection(self, req: Any, *args: Any, **kwargs: Any) -> Any:
        with _attempt.get():
            key = req.connection_key
            way = Way(
                self._context if key.is_ssl else None,
                self._resolver,
                self._egress(key.host, key.port),
                judged=self._resolver is not resolve,
            )
            origin, timeout = Origin.of(key.host, key.port), self._settings.connect_timeout
            dialling = asyncio.ensure_future(dial(origin, lambda: Wire(self._clock), way, timeout + 1.0))
            self._dialling.add(dialling)
            dialling.add_done_callback(self._dialling.discard)
            try:
                async with asyncio.timeout(timeout):
                    return (await dialling).inner
            except TimeoutError:
                raise DialFailed("connect", f"{key.host} took more than {timeout:g} s") from None

    async def _wait_for_available_connection(self, *args: Any, **kwargs: Any) -> Any:
        attempt, loop = _attempt.get(), self._loop
        until = attempt.deadline = loop.time() + attempt.patience
        attempt.queued = True
        with attempt:
            await super()._wait_for_available_connection(*args, **kwargs)
        now = loop.time()
        attempt.queued, attempt.patience, attempt.deadline = False, max(0.0, until - now), now + attempt.limit


class Session:
    """One aiohttp session. Make it on the loop that uses it.

    Deadlines are kept by one timer for all requests: aiohttp's own, one or more per request, cost a tenth of a
    request's CPU.
    """

    def __init__(self, connector: Connector, settings: Http1Settings) -> None:
        self._settings = settings
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._under_way: set[_Attempt] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._connector = connector
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NO_EXTRAS,
            auto_decompress=False,
            trust_env=False,
            # Its `connect` would count the wait for one of our own connections as the gateway's.
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        )

    def retire(self) -> None:
        """As `Http1Client.retire`."""
        self._connector.retire()

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        await self._connector.stop_dialling()
        await self._session.close()
        if self._timer is not None and not self._under_way:
            self._timer.cancel()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float | None,
        *,
        fresh: bool = False,
        patience: float | None = None,
    ) -> Response:
        """As `Http1Client.request`."""
        task = asyncio.current_task()
        assert task is not None
        limit = self._settings.request_timeout if timeout is None else timeout
        patience = limit / 2 if patience is None else patience
        attempt = _Attempt(task, self._loop.time() + limit, limit, patience, fresh, task.cancelling())
        _attempt.set(attempt)
        self._under_way.add(attempt)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)
        response: aiohttp.ClientResponse | None = None
        read = bytearray()
        try:
            response = await self._session.request(
                method, URL(url, encoded=True), headers=headers, data=body or None, allow_redirects=False
            )
            if not response.content.at_eof():
                await self._read(response.content, read)
            failed = None
        except asyncio.CancelledError:
            if attempt.was_expiry():
                failed = _expired(attempt, attempt.unsent, timeout)
            elif self._closed and not task.cancelling():
                # aiohttp cancels the tasks that wait for a connection when it is closed; our caller was not cancelled.
                failed = RequestFailed("no", "closed", own=True)
            else:
                raise
        except Exception as error:
            unsent = attempt.unsent or isinstance(error, _UNSENT)
            if attempt.was_expiry():
                failed = _expired(attempt, unsent, timeout)
            else:
                reason = "closed" if self._closed else _reason(error)
                detail = str(error).encode() if reason == "proxy" else b""
                failed = RequestFailed("no" if unsent else "unknown", reason, detail, own=self._closed)
        finally:
            self._under_way.discard(attempt)
            if response is not None and not response.closed:  # a complete one has given its connection back by itself
                response.close()
        if response is not None:
            self._connector.answered(attempt)
            return Http1Response(response.status, bytes(read[: self._settings.max_body]), response.headers)
        assert failed is not None
        if failed.sent == "unknown":
            self._connector.unanswered(attempt)
        raise failed  # out here, so that it does not carry aiohttp's error, whose text may hold the whole URL

    async def _read(self, content: aiohttp.StreamReader, into: bytearray) -> None:
        while not content.at_eof() and len(into) <= self._settings.max_body:
            into += await content.readany()

    def _tick(self) -> None:
        """Cancel the requests that are past their deadline."""
        now, due = self._loop.time(), self._timer.when() if self._timer is not None else float("inf")
        if now - due > _STALL:
            self._timer = self._loop.call_later(0.01, self._tick)
            return
        self._timer = None
        for attempt in self._under_way:
            if now >= attempt.deadline and not attempt.expired:
                attempt.expired = True
                attempt.task.cancel()
        if self._under_way:
            self._timer = self._loop.call_later(_TICK, self._tick)


_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "timeout"),
    (aiohttp.ClientResponseError, "malformed"),
    (aiohttp.ClientPayloadError, "malformed"),
    (ssl.SSLError, "tls"),
    (aiohttp.ClientConnectionError, "closed"),
    (OSError, "closed"),
    (aiohttp.InvalidURL, "malformed"),
)
"""aiohttp's errors in the words of `RequestFailed`; the first that fits."""


_UNSENT = (DialFailed, aiohttp.InvalidURL)
"""Raised before there is a connection: that much is certain."""


def _reason(error: Exception) -> str:
    if isinstance(error, DialFailed | NoAnswerCame):
        return error.reason
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "protocol")


def _expired(attempt: _Attempt, unsent: bool, timeout: float | None) -> RequestFailed:
    """A deadline passed. In the queue for one of our own connections that is an event of our own; likewise where the
    caller left less than a whole request's time and nothing was sent."""
    own = attempt.queued or (unsent and timeout is not None)
    return RequestFailed("no" if unsent else "unknown", "timeout", own=own)
