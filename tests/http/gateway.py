"""Two servers to test against: one that speaks through hyper-h2, and one that the test moves frame by frame."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from struct import iter_unpack
from typing import Any, NamedTuple

from hpack import Decoder

from fanout.http import H2Pool, Head, PoolSettings, RequestFailed, Resolver, Response, client_tls
from fanout.http.frames import PREFACE, FrameType, frame, goaway, settings, settings_ack

OK = b"\x88"
"""A header block of `:status: 200`."""


class Certificates(NamedTuple):
    ca: str
    cert: str
    key: str

    def server(self, *, alpn: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class Got(NamedTuple):
    """One whole request."""

    stream: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of one connection, in the hands of the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = Decoder()
        self.frames: list[Frame] = []

    async def frame(self) -> Frame:
        """The next frame, whatever it is."""
        head = await self.reader.readexactly(9)
        length = int.from_bytes(head[:3], "big")
        got = Frame(head[3], head[4], int.from_bytes(head[5:], "big"), await self.reader.readexactly(length))
        self.frames.append(got)
        return got

    async def expect(self, kind: FrameType) -> Frame:
        """The next frame of this kind; others are passed over."""
        while True:
            got = await self.frame()
            if got.kind == kind:
                return got

    async def expect_preface(self) -> Frame:
        """The client's preface; its SETTINGS are returned."""
        assert await self.reader.readexactly(len(PREFACE)) == PREFACE
        return await self.expect(FrameType.SETTINGS)

    async def hello(self, *values: tuple[int, int]) -> dict[int, int]:
        """Read the client's preface and SETTINGS, answer with ours, and return theirs."""
        got = await self.expect_preface()
        self.send(settings(values), settings_ack())
        return dict(iter_unpack(">HI", got.payload))

    async def request(self) -> Got:
        """The next whole request."""
        head = await self.expect(FrameType.HEADERS)
        headers = dict(self.decoder.decode(head.payload))
        body = b""
        ended = head.flags & 1
        while not ended:
            data = await self.expect(FrameType.DATA)
            if data.stream == head.stream:
                body += data.payload
                ended = data.flags & 1
        return Got(head.stream, headers, body)

    async def requests(self, count: int) -> list[Got]:
        return [await self.request() for _ in range(count)]

    def send(self, *chunks: bytes) -> None:
        self.writer.write(b"".join(chunks))

    def answer(self, stream: int, block: bytes = OK, body: bytes = b"") -> None:
        self.send(frame(FrameType.HEADERS, 0x4 if body else 0x5, stream, block))
        if body:
            self.send(frame(FrameType.DATA, 0x1, stream, body))

    def goaway(self, last: int, code: int = 0, debug: bytes = b"") -> None:
        raw = goaway(code, debug)
        self.send(raw[:9], last.to_bytes(4, "big"), raw[13:])

    async def serve(self) -> None:
        """Answer everything with 200 until the client goes."""
        try:
            while True:
                self.answer((await self.request()).stream)
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        with suppress(ConnectionError):
            await self.reader.read()

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


class Gateway:
    """A listening server; the test takes its connections one by one, in the order in which they came."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.port = 0
        self.connects = 0
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    async def accept(self) -> Peer:
        return await self._peers.get()

    def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        peer = Peer(reader, writer)
        self._all.append(peer)
        self._peers.put_nowait(peer)

    def close(self) -> None:
        for peer in self._all:
            peer.abort()


@asynccontextmanager
async def gateway(context: ssl.SSLContext | None, *, port: int = 0) -> AsyncIterator[Gateway]:
    """A gateway on a free loopback port, gone with its connections at the end."""
    made = Gateway(context)

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.arrived(reader, writer)

    server = await asyncio.start_server(arrived, "127.0.0.1", port, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.close()
        await server.wait_closed()
        await settle()


async def settle(turns: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], turn: Callable[[], Awaitable[None]] = settle) -> None:
    """Run the loop until `condition` holds; the test's timeout ends it otherwise."""
    while not condition():
        await turn()
        await asyncio.sleep(0.001)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene(NamedTuple):
    """A gateway, a pool that talks to it, and the pool's clock."""

    server: Gateway
    pool: H2Pool
    clock: Clock

    def ask(
        self, count: int = 1, *, body: bytes = b"{}", timeout: float | None = None
    ) -> list[asyncio.Future[Response]]:
        """Send requests whose paths are numbered."""
        return [self.pool.request(HEAD, b"/%d" % n, b"", body, timeout) for n in range(count)]

    async def met(self, *values: tuple[int, int]) -> Peer:
        """The next connection, with SETTINGS exchanged."""
        peer = await self.server.accept()
        await peer.hello(*values)
        return peer

    async def pass_time(self, seconds: float) -> None:
        """Let the clock jump and the pool look at it."""
        self.clock.now += seconds
        await self.tick()

    async def tick(self) -> None:
        """Let the pool's next tick, and what it sets off, happen."""
        self.pool._tick()
        await settle()

    def whole(self) -> bool:
        """Nothing in flight, and no permit lost."""
        ready = self.pool._ready
        assert self.pool.in_flight == 0
        assert all(c.limit == c.nominal for c in ready)
        assert all(not c.codec.streams and not c.codec.partial for c in (*ready, *self.pool._draining))
        return True


HEAD = Head("POST", "https", "gateway.test", [("apns-topic", "com.example.app")])


@asynccontextmanager
async def scene(
    certificates: Certificates, *, port: int = 0, resolver: Resolver | None = None, **settings_: Any
) -> AsyncIterator[Scene]:
    """A gateway over TLS and a pool whose clock stands still; its own timer never fires unless `tick` is given."""
    clock = Clock()
    values = {"tick": 3600.0, "connections": 1, "dns_interval": None, **settings_}
    async with gateway(certificates.server(), port=port) as server:
        pool = H2Pool(
            server.url,
            ssl_context=client_tls(ca_file=certificates.ca),
            settings=PoolSettings(**values),
            clock=clock,
            rng=random.Random(7),
            resolver=resolver,
        )
        async with pool:
            yield Scene(server, pool, clock)
    assert pool.in_flight == 0


async def failure(future: asyncio.Future[Response]) -> tuple[str, str]:
    """How a request failed: (sent, reason)."""
    try:
        response = await future
    except RequestFailed as failed:
        return failed.sent, failed.reason
    raise AssertionError(f"the request was answered: {response}")
