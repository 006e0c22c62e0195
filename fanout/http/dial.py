"""From a URL to an open connection: name lookup, TCP, TLS, and the gateway's first SETTINGS, all within one time limit."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

from fanout.http.connection import Connection
from fanout.http.tls import alert_of

__all__ = ["DialFailed", "Origin", "Resolver", "dial", "resolve"]

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> IP addresses, best first. Raises `OSError` where there are none."""

_SHUTDOWN = 1.0
"""Seconds for the TLS closing handshake; a dead peer never answers it."""


class DialFailed(Exception):
    """No connection came about. `reason` is one of the words of `RequestFailed`; the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Origin:
    """Scheme, host and port of a base URL. Raises `ValueError` for one that no connection can be made of."""

    __slots__ = ("authority", "host", "port", "scheme")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"{url!r} is no gateway: write https://host or https://host:port.")
        if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("A gateway's URL has no user, path, query or fragment: write https://host:port alone.")
        self.scheme = parts.scheme
        self.host = parts.hostname
        default = 443 if parts.scheme == "https" else 80
        self.port = parts.port or default
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = host if self.port == default else f"{host}:{self.port}"


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the operating system, anew each time; an IP address is itself."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def dial(
    origin: Origin,
    make: Callable[[], Connection],
    *,
    context: ssl.SSLContext | None,
    resolver: Resolver,
    timeout: float,
) -> Connection:
    """A connection whose gateway has sent its SETTINGS. Raises `DialFailed`; leaves no socket behind when it does.

    The addresses are tried one after the other, each with an equal share of the time that is left.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        async with asyncio.timeout_at(deadline):
            addresses = await resolver(origin.host, origin.port)
    except TimeoutError:
        raise DialFailed("dns", f"looking up {origin.host} took more than {timeout:g} s") from None
    except OSError as error:
        raise DialFailed("dns", f"{origin.host} cannot be resolved: {error.strerror or error}") from None
    trouble = DialFailed("dns", f"{origin.host} has no address")
    for position, address in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - position)
        try:
            return await _try(origin, address, make, context, share)
        except DialFailed as failure:
            trouble = failure
    raise trouble


async def _try(
    origin: Origin, address: str, make: Callable[[], Connection], context: ssl.SSLContext | None, timeout: float
) -> Connection:
    connection: Connection | None = None
    where = f"{origin.host} ({address} port {origin.port})"
    stage = "connect"

    def made() -> Connection:
        nonlocal connection
        connection = make()
        connection.address = address
        return connection

    try:
        async with asyncio.timeout(timeout):
            sock = await _tcp(address, origin.port)
            if context is not None:
                stage = "tls"
            await _speak(sock, made, origin.host, context, timeout)
            assert connection is not None
            if context is not None and not connection.speaks_h2:
                raise DialFailed("alpn", f"{where} does not offer HTTP/2 (ALPN h2)")
            stage = "settings"
            trouble = await connection.opened
            if isinstance(connection.lost_by, ssl.SSLError):
                raise connection.lost_by  # with TLS 1.3 a client certificate is refused after the handshake
            if trouble:
                raise DialFailed("settings", f"{where} ended the connection before its SETTINGS ({trouble})")
            return connection
    except ssl.SSLError as error:
        alert = alert_of(error)
        said = (
            f"{where} refused our certificate ({alert})"
            if alert
            else f"TLS with {where} failed: {error.reason or error}"
        )
        failure = DialFailed(alert or "tls", said)
    except TimeoutError:
        failure = DialFailed(stage, f"{where} did not answer within {timeout:.3g} s")
    except OSError as error:
        what = "cannot be reached" if stage == "connect" else "hung up while connecting"
        failure = DialFailed(stage, f"{where} {what}: {error.strerror or type(error).__name__}")
    except DialFailed as error:
        failure = error
    except BaseException:
        if connection is not None:
            connection.abort()
        raise
    if connection is not None:
        connection.abort()
    raise failure


async def _tcp(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _speak(
    sock: socket.socket, make: Callable[[], Connection], host: str, context: ssl.SSLContext | None, timeout: float
) -> None:
    """Hand the socket to a transport, through TLS where there is a context. The transport closes it, whatever happens."""
    loop = asyncio.get_running_loop()
    if context is None:
        await loop.create_connection(make, sock=sock)
    else:
        await loop.create_connection(
            make,
            sock=sock,
            ssl=context,
            server_hostname=host,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=_SHUTDOWN,
        )
