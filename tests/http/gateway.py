"""Two servers to test against: one that speaks through hyper-h2, and one that the test moves frame by frame."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from struct import iter_unpack
from typing import NamedTuple

from hpack import Decoder

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

    async def hello(self, *values: tuple[int, int]) -> dict[int, int]:
        """Read the client's preface and SETTINGS, answer with ours, and return theirs."""
        assert await self.reader.readexactly(len(PREFACE)) == PREFACE
        got = await self.expect(FrameType.SETTINGS)
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
