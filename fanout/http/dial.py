"""From a URL to an open connection: name lookup, TCP, a proxy's tunnel, TLS, and the first frames of the protocol, by
one deadline."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

from fanout.core.proxy import Proxy
from fanout.http.buffers import SmallTls
from fanout.http.proxy import ProxyFailed, tunnel
from fanout.http.race import first_of, interleaved
from fanout.http.tls import alert_of, fault_of

__all__ = ["DialFailed", "Dialled", "Origin", "Resolver", "Way", "dial", "resolve"]

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> IP addresses, best first. Raises `OSError` where there are none."""

_SHUTDOWN = 1.0
"""Seconds for the TLS closing handshake; a dead peer never answers it."""


_STAGES = {"dns": 0, "connect": 1, "proxy": 2, "tls": 3, "alpn": 4, "settings": 5, "descriptors": 6}
"""How far an attempt came, by the words of `RequestFailed`; an alert is one of TLS."""


class Dialled(Protocol):
    """The protocol that `dial` puts on a socket: one of asyncio, with these methods besides."""

    address: str

    async def ready(self, where: str) -> None:
        """Return when requests may be sent. Raises `DialFailed`, `ssl.SSLError` or `OSError`."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


P = TypeVar("P", bound=Dialled)


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

    @classmethod
    def of(cls, host: str, port: int) -> Origin:
        """The one of a host, as it stands in a URL, and a port."""
        return cls(f"https://[{host}]:{port}" if ":" in host and host[0] != "[" else f"https://{host}:{port}")


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the operating system, anew each time; an IP address is itself."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Way:
    """How connections to one origin are made: where the name is looked up, which authorities are trusted, and through
    which proxy.

    Without a proxy the connection goes to an address that `resolver` gives. Through one it goes to the name, where the
    configuration named the gateway (`judged` is false); where a client did, to an address that the resolver has judged,
    unless the proxy is to judge.
    """

    __slots__ = ("by_name", "context", "proxy", "resolver")

    def __init__(
        self, context: ssl.SSLContext | None, resolver: Resolver, proxy: Proxy | None, *, judged: bool
    ) -> None:
        self.context = context
        self.resolver = resolver
        self.proxy = proxy
        self.by_name = proxy is not None and (proxy.named or not judged)


async def dial(origin: Origin, make: Callable[[], P], way: Way, timeout: float) -> P:
    """A connection that is ready for requests. Raises `DialFailed`; leaves no socket behind when it does.

    Several addresses are tried as RFC 8305 says: attempts overlap, and all have the same deadline.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    hosts = (
        [origin.host] if way.by_name else await _addresses(origin.host, origin.port, way.resolver, deadline, timeout)
    )
    proxy = way.proxy
    hops = [""] if proxy is None else await _addresses(proxy.host, proxy.port, resolve, deadline, timeout)
    attempts = [
        partial(_attempt, origin, make, way, target, hop, deadline, timeout)
        for target in interleaved(hosts)
        for hop in interleaved(hops)
    ]
    try:
        return await first_of(attempts, lambda connection: connection.abort())
    except ExceptionGroup as group:
        for error in group.exceptions:
            if not isinstance(error, DialFailed):
                raise error from None
        # The error of the attempt that came furthest tells most; of several, the last.
        furthest = max(group.exceptions, key=lambda error: _STAGES.get(getattr(error, "reason", ""), 3))
        raise furthest from None


async def _addresses(host: str, port: int, resolver: Resolver, deadline: float, timeout: float) -> Sequence[str]:
    try:
        async with asyncio.timeout_at(deadline):
            found = await resolver(host, port)
    except TimeoutError:
        raise DialFailed("dns", f"looking up {host} took more than {timeout:g} s") from None
    except OSError as error:
        raise DialFailed(_exhausted(error) or "dns", f"{host} cannot be resolved: {error.strerror or error}") from None
    if not found:
        raise DialFailed("dns", f"{host} has no address")
    return found


async def _attempt(
    origin: Origin, make: Callable[[], P], way: Way, target: str, hop: str, deadline: float, timeout: float
) -> P:
    """One attempt: to `target`, an address or the name, through the proxy at the address `hop` where there is one."""
    connection: P | None = None
    proxy = way.proxy
    where = f"{origin.host} (port {origin.port})" if way.by_name else f"{origin.host} ({target} port {origin.port})"
    if proxy is not None:
        where = f"{where} through the proxy {proxy.authority}"
    stage = "connect"

    def made() -> P:
        nonlocal connection
        connection = make()
        connection.address = "" if way.by_name else target
        return connection

    try:
        async with asyncio.timeout_at(deadline):
            sock = await _tcp(target, origin.port) if proxy is None else await _tcp(hop, proxy.port)
            if proxy is not None:
                stage = "proxy"
                try:
                    await tunnel(sock, proxy, target, origin.port)
                except BaseException:
                    sock.close()
                    raise
            stage = "settings" if way.context is None else "tls"
            await _speak(sock, made, origin.host, way.context, timeout)
            assert connection is not None
            stage = "settings"
            await connection.ready(where)
            return connection
    except ssl.SSLError as error:
        alert = alert_of(error)
        said = f"{where} refused our certificate ({alert})" if alert else f"TLS with {where} failed: {fault_of(error)}"
        failure = DialFailed(alert or "tls", said)
    except TimeoutError:
        failure = DialFailed(stage, f"{where} did not answer within {timeout:.3g} s")
    except ProxyFailed as error:
        failure = DialFailed("proxy", f"{where}: {error}")
    except OSError as error:
        what = "cannot be reached" if stage == "connect" else "hung up while connecting"
        failure = DialFailed(_exhausted(error) or stage, f"{where} {what}: {error.strerror or type(error).__name__}")
    except DialFailed as error:
        failure = error
    except BaseException:
        if connection is not None:
            connection.abort()
        raise
    if connection is not None:
        connection.abort()
    raise failure


def _exhausted(error: OSError) -> str:
    """The word for a process that may open no more files, whose gateway has no part in it; empty for any other. A
    resolver's error does not say so: one is tried."""
    full = (errno.EMFILE, errno.ENFILE)
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as own:
        error = own
    return "descriptors" if error.errno in full else ""


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
    sock: socket.socket,
    make: Callable[[], Dialled],
    host: str,
    context: ssl.SSLContext | None,
    timeout: float,
) -> None:
    """Hand the socket to a transport, through TLS where there is a context. The transport closes it in every case."""
    loop = asyncio.get_running_loop()
    factory: Callable[[], asyncio.BaseProtocol] = make  # type: ignore[assignment]  # each Dialled is a protocol of asyncio
    if context is None:
        await loop.create_connection(factory, sock=sock)
    elif isinstance(loop, asyncio.BaseEventLoop):
        handshake = loop.create_future()
        tls = SmallTls(
            loop,
            factory(),
            context,
            handshake,
            server_hostname=host,
            ssl_handshake_timeout=timeout,  # type: ignore[arg-type]  # typeshed says int; asyncio takes seconds
            ssl_shutdown_timeout=_SHUTDOWN,
        )
        transport, _ = await loop.create_connection(lambda: tls, sock=sock)
        try:
            await handshake
        except BaseException:
            transport.abort()
            raise
    else:  # uvloop, whose own TLS takes 30 KB for a connection
        await loop.create_connection(
            factory,
            sock=sock,
            ssl=context,
            server_hostname=host,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=_SHUTDOWN,
        )
