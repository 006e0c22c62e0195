"""uvicorn, bounded: limits of a request before it reaches the app, and an end by a call instead of a signal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fanout.config import Limits
from fanout.core.peer import Network, is_trusted, peer_of
from fanout.errors import UsageError
from fanout.plugin import Forwarding
from fanout.service.accepting import Handshake, TlsListener
from fanout.service.connections import Connections, room
from fanout.service.cycle import Cycle
from fanout.service.joined import Joined
from fanout.service.lingering import Lingering
from fanout.service.tls import HANDSHAKE, ServerTls

__all__ = ["GRACE", "serving"]

GRACE = 2.5
"""Seconds that requests under way are given when the server ends."""

_BACKLOG = 2048
_SLOW = 15.0
"""Seconds that a client may take for a request's line and headers, from the moment that it connects or sends the first
byte."""
_UNREAD = 30.0
"""Seconds for which a client may leave all that was written to it unread."""
_SWEEP = 10
"""Ticks of a tenth of a second between two looks for such clients."""
_FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
_NOT_A_REQUEST = 400, "Bad Request", "These bytes are no request of HTTP/1.1, or can be read in two ways."
_OTHER_TARGET = (
    400,
    "Bad Request",
    "The target of the request is no path here: it has a fragment, or names another host than Host.",
)
_OTHER_CODING = 501, "Not Implemented", "Transfer-Encoding must be chunked, or be left out."
_TOO_LONG = 431, "Request Header Fields Too Large", "The request's head, chunk extensions or trailers are too long."

Unreadable = Callable[[str, int], None]
"""Is told of a request that never reached the app: the address of the connection, and the status."""


@asynccontextmanager
async def serving(
    app: Any,
    host: str,
    port: int,
    limits: Limits | Callable[[], Limits],
    *,
    proxies: Sequence[Network] | Callable[[], Sequence[Network]] = (),
    tls: ServerTls | None = None,
    unreadable: Unreadable | None = None,
) -> AsyncIterator[str]:
    """Serve an ASGI app, whose lifespan is the caller's affair; the URL it is found at. Port 0 is any free one.

    `proxies` are networks whose connections have no cap of their own: behind each of them are many clients. A setting
    that may change while it serves is given as a function that returns it; the caps of connections are those of the
    start. With `tls` it speaks https. `unreadable` is told of bytes that were no request.

    On leaving, it stops accepting, gives requests under way `GRACE` seconds, and ends. Raises `UsageError` where the
    address cannot be listened on.
    """
    listener = _listen(host, port)
    name, number = listener.getsockname()[:2]
    bounded = _bounded(limits, proxies, unreadable)
    config = uvicorn.Config(
        app,
        http=_buffered(bounded),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # The address of a peer behind a proxy is for the proxy's own headers to say; a header of any other peer could
        # lie.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=None,
        timeout_keep_alive=75,
        backlog=_BACKLOG,
    )
    server = _Server(config, tls, bounded)
    running = asyncio.create_task(server.serve([listener]))
    scheme = "http" if tls is None else "https"
    try:
        async with nullcontext() if tls is None else tls.followed():
            yield f"{scheme}://[{name}]:{number}" if ":" in name else f"{scheme}://{name}:{number}"
    finally:
        server.should_exit = True
        try:
            async with asyncio.timeout(GRACE):
                await asyncio.shield(running)
        except TimeoutError:
            for task in list(server.server_state.tasks):
                task.cancel()
            server.force_exit = True
            await running


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        # With the protocol named, for asyncio sets TCP_NODELAY on nothing else, and an answer is two writes.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)  # so that a client that is told the URL can connect before uvicorn has started
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port} cannot be listened on ({problem}): choose another host or port.") from None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, tls: ServerTls | None, protocol: type[_Bounded]) -> None:
        super().__init__(config)
        self._tls = tls
        self._protocol = protocol

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None:
            await super().startup(sockets)
            return
        await super().startup([])
        protocol: Any = self.config.http_protocol_class
        made = partial(protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        for listener in sockets or ():
            server: Any = TlsListener(
                listener,
                make=lambda handshake: made(handshake=handshake),
                admit=self._protocol.admit,
                forget=self._protocol.caps.closed,
                context=self._tls.context,
                timeout=HANDSHAKE,
                backlog=_BACKLOG,
            )
            self.servers.append(server)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, _Bounded):
                    connection.supervise(now)
        return await super().on_tick(counter)


class _Bounded(HttpToolsProtocol):
    """Counts the bytes that neither uvicorn nor its parser bounds, keeps trailers from the headers, and notes since
    when a head is awaited.

    `_overhead` are the bytes since a head began, or since something of the body came: the head itself, chunk
    extensions, trailers.
    """

    limit = 0
    caps: Connections[_Bounded | Handshake]
    handshake: Handshake | None = None
    """The placeholder of this connection until its TLS was agreed."""
    waiting_since = float("inf")
    _overhead = 0
    _in_body = False
    _fault = _NOT_A_REQUEST
    """The answer to the request whose head is being read, if it is none."""
    _owed = b""
    """The answer to a request that is none, while requests before it are being answered. Nothing is read after it."""
    _ended = False
    """Whether the client has ended its side: nothing more will come."""
    _lingering: Lingering
    _answering: RequestResponseCycle | None = None
    """The request that was begun last; the parser may be some requests ahead of it (`cycle`)."""
    _certificate = ""
    _unread = 0, 0.0
    """Bytes that the client had not taken when last looked, and since when it takes none."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Joined(transport))  # type: ignore[arg-type]
        self._lingering = Lingering(self.transport, self.flow)
        secured = transport.get_extra_info("ssl_object")
        shown = secured.getpeercert(binary_form=True) if secured is not None else None
        self._certificate = ssl.DER_cert_to_PEM_cert(shown) if shown else ""
        self.waiting_since = self.loop.time()
        if self.handshake is not None:
            self.caps.closed(self.handshake)
        if not self.admit(self, (self.client or ("",))[0]):
            transport.write(_FULL)
            transport.close()

    @staticmethod
    def unreadable(address: str, status: int) -> None:
        """See `Unreadable`."""

    @staticmethod
    def trusted() -> Sequence[Network]:
        """Networks whose connections have no limit of their own."""
        return ()

    @classmethod
    def admit(cls, connection: _Bounded | Handshake, address: str) -> bool:
        """Whether a connection from this address may stay; another one may be ended for it."""
        peer = "" if is_trusted(address, cls.trusted()) else peer_of(address)
        stays, victim = cls.caps.admit(connection, peer)
        if victim is not None:
            victim.transport.close()
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        self.caps.closed(self)
        self._give_up()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more, and may still read (RFC 9293, section 3.6): requests that are whole are
        answered. Where an answer has begun, such as a stream without end, the client counts as gone.
        """
        self._ended = True
        if self._lingering.until:
            return False
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # it will never be whole
        elif self._in_body:
            return False
        answering = self._answering
        # TLS has no such half (RFC 8446, section 6.1, has it; asyncio has not).
        return (
            answering is not None
            and not answering.response_started
            and self.transport.get_extra_info("ssl_object") is None
        )

    def _give_up(self) -> None:
        """Answers that are still made go nowhere: an app that waits for its client hears of it, and nothing is written
        to a transport that is closed."""
        for cycle in (self._answering, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _end(self, last: bytes = b"") -> None:
        self._give_up()
        if last:
            self.transport.write(last)
            self._lingering.sends = True  # more of these bytes may come
            self._lingering.close()
            self.caps.waits(self)
        else:
            self.transport.close()

    def _refuse(self, status: int, phrase: str, text: str) -> None:
        """Answer a request that is none, in its turn, and read nothing more."""
        self.unreadable((self.client or ("",))[0], status)
        fields = [*self.server_state.default_headers, (b"content-type", b"text/plain"), (b"connection", b"close")]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        answer = b"HTTP/1.1 %d %s\r\n%scontent-length: %d\r\n\r\n%s" % (
            status,
            phrase.encode(),
            head,
            len(text),
            text.encode(),
        )
        answering = self._answering
        if answering is None or answering.response_complete:
            self._end(b"" if self._in_body else answer)  # one whose body is broken has been answered
        elif self._in_body and answering is self.cycle:
            self._end(b"" if answering.response_started else answer)
        else:
            if self._in_body:
                self.pipeline.popleft()
            self._owed = answer

    def supervise(self, now: float) -> None:
        """Close the connection where its client has said nothing, or read nothing, for too long. `now` is the loop's
        time."""
        if self.waiting_since < now - _SLOW or 0 < self._lingering.until < now:
            self._end()
        unread = self.transport.get_write_buffer_size()
        size, since = self._unread
        if not unread or unread != size:
            self._unread = unread, now
        elif since < now - _UNREAD:
            self._give_up()
            self.transport.abort()

    def on_response_complete(self) -> None:
        following = self.pipeline[-1][0] if self.pipeline else None
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()
        if following is not None:
            self._answering = following
            return
        if (self._owed or self._ended) and not self.transport.is_closing():
            self._end(self._owed)
        self.caps.waits(self)

    def data_received(self, data: bytes) -> None:
        if self._owed:
            return
        if self._lingering.until:
            self._lingering.drop(len(data))
            return
        if not self._in_body and not self._overhead:
            self.waiting_since = self.loop.time()
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        parser: Any = self.parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no protocol is changed to
        except httptools.HttpParserError:
            self._refuse(*self._fault)
            return
        if self._overhead > self.limit and not self.transport.is_closing():
            self._refuse(*_TOO_LONG)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate:
            self.scope["extensions"] = {"tls": {"client_cert_chain": (self._certificate,), "client_cert_error": None}}

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is no header (RFC 9110, section 6.5.1), and nothing here has a use for one. uvicorn would add it to
        # the headers.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if _is_unknown_coding(self.headers):
            self._fault = _OTHER_CODING
        elif not _is_ours(self.url, self.headers):
            self._fault = _OTHER_TARGET
        if self._fault is not _NOT_A_REQUEST:
            raise ValueError("answered by _refuse")
        if not self.url.startswith(b"/"):
            self.url = _path_of(self.url)
        parser: Any = self.parser
        if self.expect_100_continue and parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1
        super().on_headers_complete()
        self._in_body = self._lingering.sends = True
        self._overhead = 0
        self.waiting_since = float("inf")
        self.caps.works(self)
        if not self.pipeline:
            self._answering = self.cycle
        self.cycle.__class__ = Cycle  # its own class is no parameter of uvicorn's
        self.cycle.transport = self._lingering  # type: ignore[assignment]
        if parser.should_upgrade():
            # No protocol is changed to, and the parser drops the bytes behind such a request: nothing may follow.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = self._lingering.sends = False
        self._overhead = 0
        super().on_message_complete()


def _is_ours(target: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request's target is a path, or names the host that `Host` names (RFC 9112, section 3.2): the app sees
    the path alone."""
    if b"#" in target:
        return False
    if target.startswith(b"/"):
        return True
    scheme, _, rest = target.partition(b"://")
    authority = rest.partition(b"/")[0].partition(b"?")[0].lower()
    hosts = [value.strip().lower() for name, value in headers if name == b"host"]
    return scheme.lower() in (b"http", b"https") and bool(authority) and hosts == [authority]


def _path_of(target: bytes) -> bytes:
    """The path and query of a target in absolute form; without a path it means "/" (RFC 9112, section 3.2.1)."""
    rest = target.partition(b"://")[2]
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    found = rest[len(authority) :]
    return found if found.startswith(b"/") else b"/" + found


def _is_unknown_coding(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the body is in another transfer coding than chunked: the parser would call that a mistake, and it is only
    not for us."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    return bool(codings) and codings != [b"chunked"]


def _buffered(protocol: type[_Bounded]) -> Any:
    """The factory that uvicorn calls to make one, reading into the loop's buffer."""

    def made(handshake: Handshake | None = None, **options: Any) -> Forwarding:
        inner = protocol(**options)
        inner.handshake = handshake
        return Forwarding(inner)

    return made


def _bounded(
    limits: Limits | Callable[[], Limits],
    proxies: Sequence[Network] | Callable[[], Sequence[Network]],
    unreadable: Unreadable | None = None,
) -> type[_Bounded]:
    def limits_now() -> Limits:
        return limits() if callable(limits) else limits

    def limit(_: _Bounded) -> int:
        # A little more than the app allows, so that the app itself names the fault where that is safe.
        return 2 * limits_now().header_bytes + 65_536

    def trusted() -> Sequence[Network]:
        return proxies() if callable(proxies) else proxies

    caps: Connections[_Bounded | Handshake] = Connections(
        room(limits_now().connections), limits_now().connections_per_peer
    )
    made: dict[str, Any] = {"limit": property(limit), "trusted": staticmethod(trusted), "caps": caps}
    if unreadable is not None:
        made["unreadable"] = staticmethod(unreadable)
    return type("_Bounded", (_Bounded,), made)
