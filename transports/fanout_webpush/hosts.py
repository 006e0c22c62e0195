"""The push services' hosts that are in use, with their connections: one pool each, and a limit to how many there
are."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from fanout.plugin import (
    ConfigurationError,
    Context,
    GuardedResolver,
    H2Pool,
    Head,
    HostGuard,
    Http1Client,
    Http1Settings,
    PoolSettings,
    RequestFailed,
    Response,
    client_tls,
)
from fanout_webpush.address import AESGCM
from fanout_webpush.outcome import Crowd
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.vapid import VapidTokens
from fanout_webpush.vendors import HTTP1_ONLY, least_ttl, most_ttl, vendor_of

__all__ = ["ForeignAddress", "Host", "Hosts"]

_PATIENCE = 1.0
"""Seconds that a delivery waits for a host's place before it goes back to the queue."""
_IDLE_CLOSE = 300.0
"""Seconds after which an unused connection is closed: the push services' own limits are not documented, NATs drop at
350."""


class ForeignAddress(Exception):
    """An address whose URL does not belong to the host that its group names."""


class Busy(Protocol):
    """Deliveries of a run to a host."""

    @property
    def idle(self) -> bool:
        """Whether no answer is waited for any more."""
        ...


class Host:
    """One push service host. `name` is its authority, which names the group; `pool` is None where it speaks HTTP/1.1
    only."""

    __slots__ = (
        "_heads",
        "_least_ttl",
        "_most_ttl",
        "accepted",
        "active",
        "crowd",
        "name",
        "origin",
        "pool",
        "prefix",
        "runs",
        "vendor",
    )

    def __init__(self, name: str, pool: H2Pool | None) -> None:
        self.name = name
        self.origin = f"https://{name}"
        self.prefix = f"https://{name}/"
        self.vendor = vendor_of(name)
        self._least_ttl, self._most_ttl = least_ttl(self.vendor), most_ttl(self.vendor)
        self.pool = pool
        self.active = 0  # deliveries by `send`, from their admission to their answer
        self.runs: dict[Busy, None] = {}  # under way
        self.accepted = 0
        self.crowd = Crowd()
        self._heads: dict[tuple[VapidTokens, str, str], tuple[str, Head]] = {}

    def path_of(self, endpoint: str) -> str:
        """The path and query of an endpoint's URL. Raises `ForeignAddress` unless it is one of this host, in plain
        characters.

        This is the guard's look at the time of sending: the host itself was looked at when it was entered.
        """
        path = endpoint[len(self.origin) :]
        if endpoint.startswith(self.prefix) and " " not in path and path.isascii() and path.isprintable():
            return path
        raise ForeignAddress

    def ttl(self, seconds: int) -> int:
        """The TTL to send, within the bounds of the service."""
        return min(max(seconds, self._least_ttl), self._most_ttl)

    def head(self, tokens: VapidTokens, coding: str, content_type: str, now: float) -> Head:
        """The shared part of requests under the token of `tokens` for this host, made anew when that is. `now` is UNIX
        seconds.

        `coding` is the body's encryption, "" without a body. The token is in the part that enters the peer's header
        table: RFC 8292, section 4, means tokens to be reused so.
        """
        authorization = tokens.header(self.origin, now)
        known = self._heads.get((tokens, coding, content_type))
        if known is not None and known[0] is authorization:
            return known[1]
        said = tokens.older(authorization)[0] if coding == AESGCM else authorization
        fields = [("authorization", said)]
        if content_type:
            fields.append(("content-type", content_type))
        if coding:
            fields.append(("content-encoding", coding))
        head = Head("POST", "https", self.name, fields)
        self._heads[tokens, coding, content_type] = (authorization, head)
        return head

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self.active == 0 and all(run.idle for run in self.runs)


class Hosts:
    """The hosts of one binding. Connections go to hosts that the guard admits, at the very addresses that it
    judged."""

    def __init__(self, settings: WebPushSettings, context: Context, guard: HostGuard) -> None:
        self._settings = settings
        self._context = context
        self._guard = guard
        self._hosts: dict[str, Host] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()  # for room, in the order in which they came
        self._closing: set[asyncio.Task[None]] = set()
        self._closed: Counter[str] = Counter()  # the counts of pools that are gone
        self._tls: ssl.SSLContext | None = None
        self._http1: Http1Client | None = None
        self._own: dict[Path, tuple[ssl.SSLContext, Http1Client]] = {}  # of hosts with an authority of their own
        self.get = self._hosts.get

    async def open(self) -> None:
        """Get ready; no connection is made. Raises `ConfigurationError` for a `ca_file` that cannot be loaded."""
        self._tls, self._http1 = self._speaking(None)
        for own in {entry.ca_file for entry in self._guard.named} - {None}:
            assert own is not None
            self._own[own] = self._speaking(own)

    def _speaking(self, own: Path | None) -> tuple[ssl.SSLContext, Http1Client]:
        """The context for HTTP/2 and the client of HTTP/1.1, both trusting `own` besides."""
        settings = self._settings
        timeout = settings.request_timeout
        client = Http1Client(
            ssl_context=self._trusting(own, ("http/1.1",)),
            settings=Http1Settings(
                connections=settings.http1_connections, request_timeout=timeout, connect_timeout=min(10.0, timeout)
            ),
            # The configuration names the gateway, so there is nothing to guard against.
            resolver=None if settings.gateway else GuardedResolver(self._guard),
            clock=self._context.clock.monotonic,
            egress=settings.egress,
        )
        # A host that speaks no HTTP/2 is to choose HTTP/1.1, not to break off with an alert: then it can be told apart.
        return self._trusting(own, ("h2", "http/1.1")), client

    def _trusting(self, own: Path | None, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """A context that trusts the binding's authority, and a host's own, besides the system's."""
        try:
            context = client_tls(ca_file=_text(self._settings.ca_file), alpn=alpn, shared=own is None)
            if own is not None:
                context.load_verify_locations(own)
        except OSError as error:
            raise ConfigurationError(
                f"ca_file ({own or self._settings.ca_file}) cannot be loaded ({error.strerror or type(error).__name__}): "
                "use certificates in PEM."
            ) from None
        return context

    def _spoken(self, name: str) -> tuple[ssl.SSLContext | None, Http1Client | None]:
        """The context and the client for this host."""
        entry = None if self._settings.gateway or not self._own else self._guard.entry(*_origin(name))
        found = self._own.get(entry.ca_file) if entry is not None and entry.ca_file is not None else None
        return (self._tls, self._http1) if found is None else found

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        self._tls = None
        for turn in self._waiting:
            turn.cancel() if turn.done() else turn.set_result(None)
        for host in list(self._hosts.values()):
            self._dismiss(host)
        if self._closing:
            await asyncio.wait(self._closing)
        for client in (self._http1, *(client for _, client in self._own.values())):
            if client is not None:
                await client.aclose()

    async def admit(self, name: str) -> Host | None:
        """The host of this authority, entered if it is new, and busy with one delivery more, which takes itself off
        `active`. None where `max_hosts` are busy and none of them has left in time. Raises `HostRefused`.
        """
        if self._tls is None:
            raise RuntimeError("The Web Push transport is not open: enter it with `async with` before sending.")
        host = self._hosts.get(name)
        if host is None:
            self._guard.check(f"https://{name}/")
            if not self._room() and not await self._wait_for_room():
                return None
            host = self._hosts.get(name)  # another may have entered it meanwhile
        if host is None:
            host = self._hosts[name] = Host(name, None)
            if host.vendor not in HTTP1_ONLY:
                host.pool = self._pool(name)
                await host.pool.__aenter__()  # does not suspend: no caller sees the host half made
        host.active += 1
        return host

    def left(self) -> None:
        """A host has become idle."""
        if self._waiting:
            self._wake()

    def _room(self) -> bool:
        """Whether one more host may be entered; an idle one is let go for it."""
        return self._tls is not None and (len(self._hosts) < self._settings.max_hosts or self._make_room())

    async def _wait_for_room(self) -> bool:
        """Whether there is room before the patience of a delivery ends; hosts take turns in the order in which they
        came."""
        until = self._context.clock.monotonic() + _PATIENCE
        while (left := until - self._context.clock.monotonic()) > 0:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                async with asyncio.timeout(left):
                    await turn
            except TimeoutError:
                break
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()  # its turn had just come
                raise
            finally:
                turn.cancel()
            if self._room():
                return True
        return False

    def _wake(self) -> None:
        """A host is idle: the caller that has waited the longest may have its place."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def over_http1(
        self, host: Host, path: str, headers: Mapping[str, str], body: bytes, *, fresh: bool
    ) -> Response:
        """One request over HTTP/1.1. Raises `RequestFailed`."""
        client = self._spoken(host.name)[1]
        if client is None:
            raise RequestFailed("no", "closed", own=True)
        gateway = self._settings.gateway
        if gateway:
            headers = {**headers, "Host": host.name}
        return await client.request("POST", (gateway or host.origin) + path, headers, body, fresh=fresh)

    def leave_http2(self, host: Host) -> None:
        """This host turned out to offer HTTP/1.1 only."""
        pool, host.pool = host.pool, None
        if pool is not None:
            self._close_later(pool)

    def retire(self) -> None:
        """Replace every connection."""
        for host in self._hosts.values():
            if host.pool is not None:
                host.pool.retire()
        for client in (self._http1, *(client for _, client in self._own.values())):
            if client is not None:
                client.retire()

    def capacity(self, name: str) -> int:
        """How many requests the connections of this host take at once."""
        host = self._hosts.get(name)
        if host is None:
            return 1
        return host.pool.capacity() if host.pool is not None else self._settings.http1_connections

    def figures(self) -> dict[str, int]:
        """The pools' figures of their connections, added up; counts go on when a host is let go."""
        total = Counter(self._closed)
        for host in self._hosts.values():
            if host.pool is not None:
                total.update(host.pool.figures())
        return dict(total)

    def _pool(self, name: str) -> H2Pool:
        settings, context = self._settings, self._context
        return H2Pool(
            settings.gateway or f"https://{name}",
            ssl_context=self._spoken(name)[0],
            settings=PoolSettings(
                connections=settings.connections,
                streams=settings.streams,
                request_timeout=settings.request_timeout,
                connect_timeout=min(10.0, settings.request_timeout),
                idle_close=_IDLE_CLOSE,
            ),
            clock=context.clock.monotonic,
            rng=context.rng,
            egress=settings.egress,
            resolver=None if settings.gateway else GuardedResolver(self._guard),
        )

    def _make_room(self) -> bool:
        """Let go of the host that was entered first of those without work."""
        host = next((host for host in self._hosts.values() if host.idle), None)
        if host is not None:
            self._dismiss(host)
        return host is not None

    def _dismiss(self, host: Host) -> None:
        del self._hosts[host.name]
        self.leave_http2(host)

    def _close_later(self, pool: H2Pool) -> None:
        self._closed.update(pool.figures() | {"connections": 0, "requests": 0})
        task = asyncio.get_running_loop().create_task(pool.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _origin(authority: str) -> tuple[str, int]:
    """Host, as it stands in a URL, and port of an authority."""
    host, colon, port = authority.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (authority, 443)
