"""The part of the HTTP/1.1 client that needs aiohttp: its session, set up for pushes, and its errors in our words."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from fanout.http.dial import Resolver
from fanout.http.http1 import Http1Response, Http1Settings
from fanout.http.response import RequestFailed, Response

__all__ = ["Session"]

_NO_EXTRAS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add. Gateways ignore or refuse headers that they did not ask for."""


_TICK = 0.1
"""Seconds between two looks at the deadlines: their precision."""


class _Attempt:
    """How far one request has come, and until when (in the loop's seconds) its `task` may wait.

    A context manager around what comes before the request is written: `unsent` stays true when that fails.
    """

    __slots__ = ("cancelling", "deadline", "expired", "task", "unsent")

    def __init__(self, task: asyncio.Task[Any], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.cancelling = task.cancelling()
        self.unsent = False
        self.expired = False

    def __enter__(self) -> None:
        self.unsent = True

    def __exit__(self, kind: object, *rest: object) -> None:
        self.unsent = kind is not None

    def was_expiry(self) -> bool:
        """Whether a cancellation that has just been caught was the deadline's and nobody else's. Takes it back if it was."""
        return self.expired and self.task.uncancel() <= self.cancelling


_attempt: ContextVar[_Attempt] = ContextVar("_attempt")


class _Connector(aiohttp.TCPConnector):
    """Notes when a request waits for its connection: nothing of it can have reached the gateway then.

    And passes over idle connections on which something came unasked: aiohttp would take it for the answer to the next request,
    and every answer after it for the one before.
    """

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        while True:
            connection = await super().connect(*args, **kwargs)
            protocol = connection.protocol
            if protocol is None or not protocol.should_close:
                return connection
            connection.close()

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        with _attempt.get():
            return await super()._create_connection(*args, **kwargs)

    async def _wait_for_available_connection(self, *args: Any, **kwargs: Any) -> Any:
        with _attempt.get():
            return await super()._wait_for_available_connection(*args, **kwargs)


class _Lookup(AbstractResolver):
    """Our resolver, for aiohttp. It connects to what is returned here, without another lookup."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._resolver(host, port)
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Session:
    """One aiohttp session. Make it on the loop that uses it.

    Deadlines are kept by one timer for all requests: aiohttp's own, one or more per request, cost a tenth of a request's CPU.
    """

    def __init__(self, context: ssl.SSLContext, settings: Http1Settings, resolver: Resolver) -> None:
        self._settings = settings
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._under_way: set[_Attempt] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                ssl=context,
                resolver=_Lookup(resolver),
                limit=0,
                limit_per_host=settings.connections,
                keepalive_timeout=settings.keep_alive,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NO_EXTRAS,
            auto_decompress=False,
            trust_env=False,
            # aiohttp would round times above its threshold up to whole seconds.
            timeout=aiohttp.ClientTimeout(connect=settings.connect_timeout, ceil_threshold=float("inf")),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        await self._session.close()
        if self._timer is not None and not self._under_way:
            self._timer.cancel()

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float | None
    ) -> Response:
        """As `Http1Client.request`."""
        task = asyncio.current_task()
        assert task is not None
        limit = self._settings.request_timeout if timeout is None else timeout
        attempt = _Attempt(task, self._loop.time() + limit)
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
                failed = _expired(attempt.unsent, timeout)
            elif self._closed and not task.cancelling():
                # aiohttp cancels those who wait for a connection when it is closed; nobody cancelled our caller.
                failed = RequestFailed("no", "closed", own=True)
            else:
                raise
        except Exception as error:
            unsent = attempt.unsent or isinstance(error, _UNSENT)
            if attempt.was_expiry():
                failed = _expired(unsent, timeout)
            else:
                reason = "closed" if self._closed else _reason(error)
                failed = RequestFailed("no" if unsent else "unknown", reason, own=self._closed)
        finally:
            self._under_way.discard(attempt)
            if response is not None and not response.closed:  # a complete one has given its connection back by itself
                response.close()
        if response is not None:
            return Http1Response(response.status, bytes(read[: self._settings.max_body]), response.headers)
        assert failed is not None
        raise failed  # out here, so that it does not carry aiohttp's error, whose text may hold the whole URL

    async def _read(self, content: aiohttp.StreamReader, into: bytearray) -> None:
        while not content.at_eof() and len(into) <= self._settings.max_body:
            into += await content.readany()

    def _tick(self) -> None:
        """Cancel what is past its deadline."""
        self._timer = None
        now = self._loop.time()
        for attempt in self._under_way:
            if now >= attempt.deadline and not attempt.expired:
                attempt.expired = True
                attempt.task.cancel()
        if self._under_way:
            self._timer = self._loop.call_later(_TICK, self._tick)


_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientConnectorCertificateError, "tls"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ConnectionTimeoutError, "connect"),
    (aiohttp.ClientConnectorError, "connect"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientResponseError, "malformed"),
    (aiohttp.ClientPayloadError, "malformed"),
    (ssl.SSLError, "tls"),
    (aiohttp.ClientConnectionError, "closed"),
    (OSError, "closed"),
    (aiohttp.InvalidURL, "malformed"),
)
"""aiohttp's errors in the words of `RequestFailed`; the first that fits."""


_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Raised before there is a connection, whatever else is known."""


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "protocol")


def _expired(unsent: bool, timeout: float | None) -> RequestFailed:
    """A deadline passed. Where the caller left less than a whole request's time and nothing was sent, that time was used up here."""
    return RequestFailed("no" if unsent else "unknown", "timeout", own=unsent and timeout is not None)
