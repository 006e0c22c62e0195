"""The corpus, and a listener on loopback that must stay silent."""

from __future__ import annotations

import asyncio
import contextlib
import runpy
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session")
def corpus() -> SimpleNamespace:
    """The lists of corpus.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("corpus.py"))))


class Canary:
    """A listener on 127.0.0.1 and ::1 that counts `connections`. `attempts` are the addresses that the test tried to
    connect to."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.attempts: list[str] = []

    def heard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()

    @property
    def silent(self) -> bool:
        return not self.connections and not self.attempts


@pytest.fixture
async def canary(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Canary]:
    """The listener. A connect that would leave loopback is noted and refused."""
    found = Canary()
    real = BaseSelectorEventLoop.sock_connect

    async def sock_connect(loop: BaseSelectorEventLoop, sock: Any, address: Any) -> None:
        found.attempts.append(address[0])
        if address[0] not in ("127.0.0.1", "::1"):
            raise ConnectionRefusedError("this test stays on loopback")
        await real(loop, sock, address)

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", sock_connect)
    servers = [await asyncio.start_server(found.heard, "127.0.0.1", 0)]
    found.port = servers[0].sockets[0].getsockname()[1]
    with contextlib.suppress(OSError):  # a machine without IPv6
        servers.append(await asyncio.start_server(found.heard, "::1", found.port))
    yield found
    for server in servers:
        server.close()
        await server.wait_closed()
