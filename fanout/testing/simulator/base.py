"""The server of a simulator: its address, its counters, and the order in which faults, scripts and the gateway
answer."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict

from fanout.testing.simulator.answers import Answer, Push, Reply, Request
from fanout.testing.simulator.certificates import Authority
from fanout.testing.simulator.connection import StrictConnection
from fanout.testing.simulator.counters import Counters
from fanout.testing.simulator.faults import Faults, Injector
from fanout.testing.simulator.lean import LeanConnection
from fanout.testing.simulator.ledger import Ledger
from fanout.testing.simulator.link import Connection

__all__ = ["Counters", "Http2SimulatorOptions", "Simulator", "SimulatorOptions"]


class SimulatorOptions(TypedDict, total=False):
    """The keyword arguments that every simulator takes.

    Attributes:
        folder: Keeps the certificates; default: a temporary one, removed at the end.
        host: The address to listen on; default: 127.0.0.1.
        port: The port; 0, the default, takes a free one.
        ledger: A file to which accepted pushes are appended.
        lean: Answer without any check, for speed.
        faults: The faults to inject from the start; may be changed while it runs.
        clock: Gives UNIX seconds.
    """

    folder: Path | str | None
    host: str
    port: int
    ledger: Path | str | None
    lean: bool
    faults: Faults | None
    clock: Callable[[], float]


class Http2SimulatorOptions(SimulatorOptions, total=False):
    """The keyword arguments of a simulator that speaks HTTP/2.

    Attributes:
        streams: The MAX_CONCURRENT_STREAMS that a new connection is told (RFC 9113, section 6.5.2); default: 1000,
            FCM's 100.
    """

    streams: int


class Simulator:
    """A gateway on loopback; an async context manager. A subclass gives `handle`, `settings` and, to be complete, the
    rest.

    The arguments are those of `SimulatorOptions` and `Http2SimulatorOptions`. `faults`, `script` and `silent` may be
    changed while it runs: `script` is asked before `handle`, and None from it means that `handle` answers; `silent`
    leaves all input unread and unanswered. `pushes`, when set to a list, is given every accepted push.
    """

    name: ClassVar[str] = ""
    behaviours: ClassVar[tuple[str, ...]] = ("good",)
    """The kinds of address that `address` can make: devices that behave differently, known by their address alone."""
    lean_body: ClassVar[bytes] = b""
    """The body of every answer in lean mode."""

    def __init__(
        self,
        *,
        folder: Path | str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        ledger: Path | str | None = None,
        lean: bool = False,
        faults: Faults | None = None,
        streams: int = 1000,
        clock: Callable[[], float] = time.time,
        client_certificates: bool = False,
    ) -> None:
        self.counters = Counters()
        self.script: Callable[[Request], Answer | None] | None = None
        self.silent = False
        self.pushes: list[Push] | None = None
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self.streams = streams
        self.clock = clock
        self.lean = lean
        self.ledger = Ledger(Path(ledger)) if ledger is not None else None
        self.faults = faults or Faults()
        self._temporary = tempfile.TemporaryDirectory(prefix="fanout-simulator-") if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary is not None else folder or "")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._host = host
        self._port = port
        self._client_certificates = client_certificates
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.authority = Authority(self.folder)

    async def __aenter__(self) -> Self:
        kind = LeanConnection if self.lean else StrictConnection
        self._server = await asyncio.get_running_loop().create_server(
            lambda: kind(self),
            self._host,
            self._port,
            ssl=self.authority.server_context(client_certificates=self._client_certificates),
            ssl_handshake_timeout=5.0,
            backlog=1024,
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await self.disconnect()
            # Those still in their TLS handshake: asyncio's server has it from Python 3.13 on, and uvloop's has not.
            if (abort := getattr(server, "abort_clients", None)) is not None:
                abort()
            await server.wait_closed()
        if self.ledger is not None:
            self.ledger.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def url(self) -> str:
        """The base URL, such as `https://127.0.0.1:40123`."""
        return f"https://{self._host}:{self._port}"

    @property
    def ca_file(self) -> str:
        """The certificate to trust, as a path."""
        return str(self.authority.ca_file)

    @property
    def faults(self) -> Faults:
        """The faults at present."""
        return self._injector.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        if self.lean and faults != Faults(seed=faults.seed):
            raise ValueError("A lean simulator answers everything alike: leave out lean, or the faults.")
        self._injector = Injector(faults)

    # -- the part of a subclass

    def settings(self) -> dict[str, Any]:
        """The settings of a binding that talks to this simulator, as plain values, throw-away credentials included."""
        raise NotImplementedError

    def handle(self, request: Request) -> Answer:
        """The gateway's answer to this request."""
        raise NotImplementedError

    def first_streams(self, certificate: bytes | None) -> int:
        """The MAX_CONCURRENT_STREAMS that a new connection is told; the client's certificate is in DER."""
        return self.streams

    def error(self, reason: str, request: Request) -> Reply:
        """The gateway's answer for `reason`, which `Faults.errors` names."""
        raise NotImplementedError

    def lean_push(self, block: bytes, body: bytes) -> Push | None:
        """The ledger's line in lean mode, found in the raw header block; None if the ids are not there."""
        return None

    @classmethod
    def address(cls, number: int, behaviour: str = "good") -> Any:
        """The raw address of the device of that number, which behaves so; the same in every process."""
        raise NotImplementedError

    # -- a test's actions on all connections

    def go_away(self, *, short: int = 0, code: int = 0, debug: bytes = b"") -> None:
        """Send GOAWAY on every connection, with a last stream id that is `short` requests too low."""
        for connection in list(self._connections):
            connection.go_away(short=short, code=code, debug=debug)

    def announce(self, streams: int) -> None:
        """Tell every connection, and those to come, another MAX_CONCURRENT_STREAMS."""
        self.streams = streams
        for connection in list(self._connections):
            connection.announce(streams)

    async def disconnect(self) -> None:
        """Cut every connection without a word, and wait until the sockets are gone."""
        connections = list(self._connections)
        for connection in connections:
            connection.transport.abort()
        for connection in connections:
            await connection.closed

    async def requested(self, count: int) -> None:
        """Wait until so many requests have arrived since the start (those that are never answered too)."""
        if self.counters.requests < count:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.append((count, future))
            await future

    # -- for the connections

    def answer(self, request: Request) -> Answer:
        """The answer to one request: a fault, the script's or the gateway's own; counted and, if a push, recorded."""
        self.counters.requests += 1
        if self._awaited:
            self._tell_awaiting()
        drawn = self._injector.draw()
        if drawn is not None and not drawn.handled:
            return self._counted(self.error(drawn.what, request)) if isinstance(drawn.what, str) else drawn.what
        answer = self.script(request) if self.script is not None else None
        if answer is None:
            answer = self.handle(request)
        if isinstance(answer, Reply):
            answer = self._counted(answer)
        if drawn is not None and not isinstance(drawn.what, str):
            return drawn.what
        return answer

    def _counted(self, reply: Reply) -> Reply:
        late = self._injector.delay()
        undecided = bool(late) and self.faults.decide_late
        if reply.push is not None:
            if not undecided:
                self.accept(reply.push)
        elif reply.status >= 300:
            self.counters.rejected[reply.reason or str(reply.status)] += 1
        return replace(reply, after=reply.after + late, undecided=undecided) if late else reply

    def accept(self, push: Push) -> None:
        """Count and record an accepted push."""
        self.counters.accepted += 1
        self.record(push)

    def decided(self, reply: Reply) -> None:
        """An answer that was undecided until now leaves: its push is accepted."""
        if reply.push is not None:
            self.accept(reply.push)

    def record(self, push: Push) -> None:
        """Add an accepted push to the ledger, if there is one."""
        if self.pushes is not None:
            self.pushes.append(push)
        if self.ledger is not None:
            self.ledger.add(push.delivery, push.address, push.notification, self.clock())

    def _tell_awaiting(self) -> None:
        for count, future in self._awaited:
            if self.counters.requests >= count and not future.done():
                future.set_result(None)
        self._awaited = [item for item in self._awaited if not item[1].done()]

    def flush_ledger(self) -> None:
        """Write the ledger; called before any answer leaves."""
        if self.ledger is not None:
            self.ledger.flush()

    def register(self, connection: Connection) -> None:
        """A connection was made."""
        self._connections.add(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
