"""The common parts of a simulator's strict and lean connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fanout.testing.simulator.base import Simulator

__all__ = ["Connection"]


class Connection(asyncio.Protocol):
    """The common parts of every connection of a simulator. `closed` resolves when the socket is gone."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.counters = simulator.counters
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.counters.connections += 1
        self.counters.open_connections += 1
        self.simulator.register(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.counters.open_connections -= 1
        self.simulator.forget(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """A client that does not read its answers is not read from either."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def eof_received(self) -> None:
        return None

    def go_away(self, *, short: int = 0, code: int = 0, debug: bytes = b"") -> None:
        """Send GOAWAY; streams up to the last one named are still answered, then the connection is closed."""
        raise NotImplementedError

    def announce(self, streams: int) -> None:
        """Send SETTINGS with another MAX_CONCURRENT_STREAMS."""
        raise NotImplementedError
