"""Egress proxies to test against: one that the test moves, and two real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fanout.core.proxy import Proxy
from fanout_kit.ports import free_port
from tests.http.test_external import needs

Say = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Tunnels:
    """An HTTP proxy for CONNECT. `heads` are the requests it got; `say`, where set, answers instead of a tunnel."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[bytes] = []
        self.say: Say | None = None
        self.to: tuple[str, int] | None = None
        self.open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def proxy(self) -> Proxy:
        return Proxy("127.0.0.1", self.port)

    def cut(self) -> None:
        """End every tunnel without a word."""
        for writer in list(self.open):
            writer.transport.abort()

    def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.say is not None:
                await self.say(head, reader, writer)
                return
            name, _, port = head.split(b" ")[1].decode().rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(*(self.to or (name.strip("[]"), int(port))))
            self.open.add(far_writer)
            writer.write(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
            await asyncio.wait(
                [asyncio.ensure_future(_pipe(reader, far_writer)), asyncio.ensure_future(_pipe(far_reader, writer))]
            )
            self.open.discard(far_writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.transport.abort()

    async def aclose(self) -> None:
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def tunnels(port: int = 0) -> AsyncIterator[Tunnels]:
    """Such a proxy on loopback."""
    made = Tunnels()
    server = await asyncio.start_server(made.arrived, "127.0.0.1", port)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.aclose()
        await server.wait_closed()


async def listening(process: asyncio.subprocess.Process, port: int) -> None:
    """Return when something accepts connections on the port."""
    while True:
        assert process.returncode is None, "the proxy ended at once"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


@asynccontextmanager
async def _running(command: list[str], port: int, folder: Path) -> AsyncIterator[int]:
    log = (folder / "proxy.out").open("ab")
    process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await listening(process, port)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        log.close()


@asynccontextmanager
async def tinyproxy(folder: Path, *lines: str, port: int = 0) -> AsyncIterator[int]:
    """tinyproxy on loopback, with these lines of configuration besides; its port. Skips where it is not installed."""
    program, port = needs("tinyproxy", "tinyproxy"), port or free_port()
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", "Timeout 600", "MaxClients 100", *lines, ""]))
    async with _running([program, "-d", "-c", str(config)], port, folder) as found:
        yield found


@asynccontextmanager
async def squid(folder: Path, *lines: str, port: int = 0) -> AsyncIterator[int]:
    """squid on loopback, with these lines before the rule that allows everything; its port. Skips where it is not
    installed."""
    program, port = needs("squid", "squid"), port or free_port()
    config = folder / "squid.conf"
    config.write_text(
        "\n".join(
            [
                f"http_port 127.0.0.1:{port}",
                "pid_filename none",
                "cache_log /dev/null",  # as root it becomes another user, to which the folder is closed
                "access_log none",
                "cache deny all",
                "shutdown_lifetime 0 seconds",
                "pinger_enable off",
                "netdb_filename none",
                *lines,
                "http_access allow all",
                "",
            ]
        )
    )
    async with _running([program, "-N", "-n", f"fanout{port}", "-f", str(config)], port, folder) as found:
        yield found
