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


class _Attempt:
    """How far one request has come."""

    __slots__ = ("connected",)

    def __init__(self) -> None:
        self.connected = False


_attempt: ContextVar[_Attempt] = ContextVar("_attempt")


class _Connector(aiohttp.TCPConnector):
    """Notes when a request has got its connection: before that nothing can have reached the gateway."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        _attempt.get().connected = True
        return connection


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
    """One aiohttp session. Make it on the loop that uses it."""

    def __init__(self, context: ssl.SSLContext, settings: Http1Settings, resolver: Resolver) -> None:
        self._settings = settings
        self._closed = False
        self._timeout = self._limits(settings.request_timeout)
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
            timeout=self._timeout,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        await self._session.close()

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float | None
    ) -> Response:
        """As `Http1Client.request`."""
        attempt = _Attempt()
        _attempt.set(attempt)
        try:
            response = await self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                timeout=self._timeout if timeout is None else self._limits(timeout),
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or task is None or task.cancelling():
                raise
            # aiohttp cancels those who wait for a connection when it is closed; nobody cancelled our caller.
            failed = RequestFailed("no", "closed")
        except Exception as error:
            reason = "closed" if self._closed else _reason(error)
            failed = RequestFailed("unknown" if attempt.connected else "no", reason)
        else:
            return Http1Response(response.status, await self._body(response), response.headers)
        raise failed  # out here, so that it does not carry aiohttp's error, whose text may hold the whole URL

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        content = response.content
        if content.at_eof():
            response.release()
            return b""
        most = self._settings.max_body
        body = bytearray()
        try:
            while not content.at_eof() and len(body) <= most:
                body += await content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # the status has come, and it is what counts
        finally:
            if content.at_eof():
                response.release()
            else:
                response.close()
        return bytes(body[:most])

    def _limits(self, total: float) -> aiohttp.ClientTimeout:
        connect = min(total, self._settings.connect_timeout)
        # aiohttp would round times above its threshold up to whole seconds.
        return aiohttp.ClientTimeout(total=total, connect=connect, ceil_threshold=float("inf"))


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


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "protocol")
