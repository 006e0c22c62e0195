"""An echo gateway, and a client made of hyper-h2, which shares no code with the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from fanout.testing.simulator import Answer, Push, Reply, Request, Simulator


class Echo(Simulator):
    """Accepts `/push/<digest>`, echoes the body of `/echo`, and answers `/error/<reason>` with that."""

    name = "echo"

    def settings(self) -> dict[str, Any]:
        return {"gateway": self.url, "ca_file": self.ca_file}

    def handle(self, request: Request) -> Answer:
        kind, _, rest = request.path.lstrip("/").partition("/")
        if kind == "push":
            push = Push(request.headers.get("apns-id", ""), rest, "")
            return Reply(200, {"x-long": "v" * 300}, push=push)
        if kind == "echo":
            return Reply(200, {"x-method": request.method}, request.body)
        return self.error(rest, request)

    def error(self, reason: str, request: Request) -> Reply:
        return Reply(503, {}, reason.encode(), reason=reason)


class Client:
    """One connection. `request` sends, `answer` waits for the end of a stream: (status, headers, body), or the error
    code of a reset."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.done: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaways: list[h2.events.ConnectionTerminated] = []
        self.limits: list[int] = []
        self.frames: list[h2.events.DataReceived] = []
        self.closed = False

    async def start(self) -> None:
        self.h2.initiate_connection()
        self.flush()
        while not self.limits:
            await self.read()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def request(self, path: str, body: bytes = b"", method: str = "POST", **headers: str) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.h2.send_headers(stream, fields, end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    async def read(self) -> None:
        data = await asyncio.wait_for(self.reader.read(65536), 10)
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    self.headers[event.stream_id] = dict(event.headers)
                case h2.events.DataReceived():
                    self.frames.append(event)
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    with contextlib.suppress(Exception):
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self.done.add(event.stream_id)
                case h2.events.StreamReset():
                    self.resets[event.stream_id] = int(event.error_code)
                case h2.events.ConnectionTerminated():
                    self.goaways.append(event)
                    # hyper-h2 refuses the answers that a graceful GOAWAY promises; RFC 9113, section 6.8, does not.
                    self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
                case h2.events.RemoteSettingsChanged():
                    for code, change in event.changed_settings.items():
                        if code == 3:
                            self.limits.append(change.new_value)
        if not self.closed:
            self.flush()

    async def answer(self, stream: int) -> tuple[int, dict[str, str], bytes] | int:
        while stream not in self.done and stream not in self.resets:
            if self.closed:
                raise ConnectionError("closed without an answer")
            await self.read()
        if stream in self.resets:
            return self.resets[stream]
        headers = dict(self.headers[stream])
        return int(headers.pop(":status")), headers, self.bodies.get(stream, b"")

    async def until_closed(self) -> None:
        try:
            while not self.closed:
                await self.read()
        except (ConnectionError, ssl.SSLError):
            self.closed = True


Connect = Callable[[Simulator], AbstractAsyncContextManager[Client]]


@pytest.fixture
def connect() -> Connect:
    @asynccontextmanager
    async def make(simulator: Simulator, start: bool = True) -> AsyncIterator[Client]:
        context = ssl.create_default_context(cafile=simulator.ca_file)
        context.set_alpn_protocols(["h2"])
        parts = urlsplit(simulator.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
        client = Client(reader, writer)
        try:
            if start:
                await client.start()
            yield client
        finally:
            writer.transport.abort()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    return make


@pytest.fixture
def echo() -> type[Echo]:
    return Echo
