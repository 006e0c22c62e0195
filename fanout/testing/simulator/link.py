"""The common parts of a simulator's strict and lean connections."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Protocol, cast

from fanout.testing.simulator.answers import Answer, Push, Reply, Request
from fanout.testing.simulator.counters import Counters
from fanout.testing.simulator.faults import Faults
from fanout.testing.simulator.ledger import Ledger

__all__ = ["Connection", "Gateway"]


class Gateway(Protocol):
    """A simulator, as its connections use it."""

    lean_body: ClassVar[bytes]
    counters: Counters
    silent: bool
    streams: int
    ledger: Ledger | None

    @property
    def faults(self) -> Faults:
        """The faults at present."""
        ...

    def first_streams(self, certificate: bytes | None, /) -> int:
        """The MAX_CONCURRENT_STREAMS of a new connection."""
        ...

    def answer(self, request: Request, /) -> Answer:
        """The gateway's answer to this request."""
        ...

    def decided(self, reply: Reply, /) -> None:
        """A request was answered so."""
        ...

    def lean_push(self, block: bytes, body: bytes, /) -> Push | None:
        """The ledger's line in lean mode."""
        ...

    def record(self, push: Push, /) -> None:
        """Write a push into the ledger."""
        ...

    def flush_ledger(self) -> None:
        """Write the ledger out."""
        ...

    def register(self, connection: Connection, /) -> None:
        """A connection was made."""
        ...

    def forget(self, connection: Connection, /) -> None:
        """A connection was lost."""
        ...


class Connection(asyncio.Protocol):
    """The common parts of every connection of a simulator. `closed` resolves when the socket is gone."""

    def __init__(self, simulator: Gateway) -> None:
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
