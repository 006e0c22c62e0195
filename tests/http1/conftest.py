"""A server over TLS on loopback that says exactly what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fanout.plugin import Http1Client, Http1Settings, client_tls
from fanout.testing.simulator import Authority


class Server:
    """`say` is given each request's head and a writer; by default the answer is an empty 200."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.port = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.say: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]] = self.ok
        self.arrived = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def ok(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                self.bodies.append(await reader.readexactly(int(length or b"0")))
                self.heads.append(head)
                self.arrived.set()
                await self.say(head, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self.serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def client(self, **settings: float) -> Http1Client:
        context = client_tls(ca_file=str(self.authority.ca_file), alpn=("http/1.1",))
        return Http1Client(ssl_context=context, settings=Http1Settings(**settings))  # type: ignore[arg-type]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found = Server(Authority(tmp_path))
    context = found.authority.server_context()
    context.set_alpn_protocols(["http/1.1"])
    listening = await asyncio.start_server(found.connected, "127.0.0.1", 0, ssl=context)
    found.port = listening.sockets[0].getsockname()[1]
    yield found
    listening.close()
    for task in list(found.tasks):
        task.cancel()
    await asyncio.gather(*found.tasks, return_exceptions=True)
    await listening.wait_closed()
