"""One virtual process with the production engine in it, and a gateway that accepts everything. Nothing depends on time
or chance."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from struct import Struct
from types import FrameType
from typing import Any

from benchmarks.guard.counting import Calls, Counting
from fanout import bootstrap
from fanout.core.policy import Retention
from fanout.engine import Engine, EngineOptions
from fanout.plugin import Clock, Context, StorageContext, Transport, literal
from fanout.registry import Registry
from fanout.storage.sqlite import operations
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.simulator import frames as h2
from fanout_kit.simulation.loop import NodeLoop
from fanout_kit.simulation.network import End, Host, Network
from fanout_kit.simulation.trace import Trace
from fanout_kit.simulation.world import NodeClock, World

__all__ = ["GATEWAY", "Process", "Totals"]

GATEWAY = "gateway.test"
_HOUR = 3600.0


class _Silent(Trace):
    """Nothing is written down."""

    def add(self, at: float, who: str, what: str, text: str = "", blob: bytes = b"") -> None:
        pass


class Totals:
    """Counts outside of Python: statements, commits and changed rows of SQL, writes to the socket and their bytes,
    wake-ups."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(
            ("statements", "commits", "rows", "writes", "bytes", "iterations", "handles"), 0
        )

    def statement(self, *_: object) -> bool:
        """For `exec_trace` of the connection."""
        self.counts["statements"] += 1
        return True

    def commit(self) -> bool:
        """For its commit hook."""
        self.counts["commits"] += 1
        return False

    def row(self, *_: object) -> None:
        """For its update hook, which hears of each changed row of a table with row ids."""
        self.counts["rows"] += 1

    def write(self, frame: FrameType) -> None:
        """`End.write` is entered."""
        if frame.f_locals["self"].host.name == GATEWAY and frame.f_locals["self"].sock is not None:
            self.counts["writes"] += 1
            self.counts["bytes"] += len(frame.f_locals["data"])

    def handle(self, frame: FrameType) -> None:
        """`Handle._run` is entered."""
        self.counts["handles"] += 1


class _Node(NodeLoop):
    """A process that is counted, iteration by iteration, while `counting` is set."""

    counting: Counting | None = None
    totals: Totals

    def iterate(self) -> None:
        counting = self.counting
        if counting is None:
            super().iterate()
            return
        self.totals.counts["iterations"] += 1
        counting.start()
        try:
            super().iterate()
        finally:
            counting.stop()


class _Storage(Inline):
    """Operations run where they are called, and statements are counted while `totals` is set."""

    connection: Any = None

    async def start(self, open_database: Callable[[], Any]) -> None:
        await super().start(open_database)
        assert self._database is not None
        self.connection = self._database._connection

    def count(self, totals: Totals | None) -> None:
        """Count into this from now on, or not at all."""
        connection = self.connection
        connection.exec_trace = None if totals is None else totals.statement
        connection.set_commit_hook(None if totals is None else totals.commit)
        connection.set_update_hook(None if totals is None else totals.row)


class _Still:
    """`time`, for the part of the storage that shares its lock with other processes by the clock: it stands still."""

    @staticmethod
    def monotonic() -> float:
        return 0.0


class _Accepting(asyncio.Protocol):
    """A gateway that reads frame headers, and answers the end of each stream with `answer`: a header block, and maybe a
    body."""

    def __init__(self, answer: bytes, body: bytes) -> None:
        self._answer = answer
        self._body = body
        self._rest = b""
        self._preface = len(h2.PREFACE)
        self._consumed = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        large = 0x7FFF_FFFF
        first = {h2.MAX_CONCURRENT_STREAMS: 1000, h2.INITIAL_WINDOW_SIZE: large}
        transport.write(h2.settings(first) + h2.window_update(0, large - 65_535))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        position, self._preface = self._preface, 0
        out = []
        while len(data) - position >= 9:
            start, flags, stream = _FRAME.unpack_from(data, position)
            size, kind = start >> 8, start & 0xFF
            if len(data) - position < 9 + size:
                break
            position += 9 + size
            if kind in (h2.DATA, h2.HEADERS):
                self._consumed += size
                if flags & h2.END_STREAM:
                    last = 0 if self._body else h2.END_STREAM
                    out.append(h2.frame(h2.HEADERS, h2.END_HEADERS | last, stream, self._answer))
                    if self._body:
                        out.append(h2.frame(h2.DATA, h2.END_STREAM, stream, self._body))
            elif kind == h2.SETTINGS and not flags & 1:
                out.append(h2.frame(h2.SETTINGS, 1, 0))
            elif kind == h2.PING and not flags & 1:
                out.append(h2.frame(h2.PING, 1, 0, data[position - size : position]))
        self._rest = data[position:]
        if out:
            self._transport.write(b"".join(out))

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        pass


_FRAME = Struct("!IBI")

ANSWER = b"\x88" + literal("apns-id", "6a5b1f0e-2d3c-5e4f-8a9b-0c1d2e3f4a5b")
"""The header block of a gateway's yes, which has fields besides the status."""


def _registered(transport: str, settings: Mapping[str, Any], clock: Clock, rng: random.Random) -> Transport:
    """The transport of that name, as a program's own configuration makes it."""
    registry = Registry()
    table = {transport: {**settings, "gateway": f"https://{GATEWAY}"}}
    read = bootstrap.make_settings(None, {"storage": "memory:", "transports": table}, registry=registry)
    ((_, _, binding),) = read.bindings()
    context = Context(app="default", binding=transport, clock=clock, rng=rng)
    return registry.make_transport(transport, binding.settings, context)


class Process:
    """A worker with one binding. `settings` are the binding's, without its gateway; `answer` and `body` are that
    gateway's answer. A transport that was `made` needs none of these: the network stays out of the count. `beside` is
    entered when the engine is open, and left before it closes."""

    def __init__(
        self,
        folder: Path,
        transport: str,
        settings: Mapping[str, Any],
        *,
        answer: bytes = ANSWER,
        body: bytes = b"",
        made: Transport | None = None,
        beside: Callable[[Engine], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        self.world = World(random.Random(1), _Silent())
        network = Network(
            self.world, random.Random(2), latency=(0.001, 0.001), segment=16_384, split=0.0, window=1 << 20
        )
        gateway = NodeLoop(self.world, network, "gateway", random.Random(3), lag=0.0)
        network.add(Host(GATEWAY, ["192.0.2.1"], gateway, lambda: _Accepting(answer, body)))
        self.node = _Node(self.world, network, "worker", random.Random(4), lag=0.0)
        self._offload = _Storage()
        clock, rng = NodeClock(self.world), random.Random(5)
        operations.time = _Still  # type: ignore[attr-defined,assignment]
        storage: Any = SqliteStorage(
            str(folder / "guard.db"), StorageContext(clock=clock, retention=Retention()), offload=lambda: self._offload
        )
        if made is None:
            made = _registered(transport, settings, clock, rng)
        self._beside = beside
        self._state = "closed"
        self._stopping: asyncio.Future[None] | None = None
        self.engine = Engine(storage, {("default", transport): made}, EngineOptions(clock=clock, rng=rng))

    def open(self) -> None:
        """Start the engine, on the virtual loop."""
        self.node.begin(self._main)
        self.world.run(lambda: self._state != "closed", limit=60.0)
        if self._state != "open":
            raise RuntimeError(f"The engine did not open: {self.world.errors}")
        # A collection by the garbage collector falls where it may.
        gc.collect()
        gc.disable()

    async def _main(self) -> None:
        try:
            async with self.engine, self._beside(self.engine):
                self._state = "open"
                self._stopping = self.node.create_future()
                await self._stopping
        finally:
            self._state = "ended"

    def close(self) -> None:
        """Close it, and let go of everything."""
        gc.enable()
        if self._stopping is not None:
            self.node.post(self._stopping.set_result, None)
            self.world.run(lambda: self._state == "ended", limit=self.world.time + 60.0)
        for node in list(self.world.nodes):
            node.kill()
        for node in self.world.born:
            node.bury()

    def do(self, call: Callable[[Engine], Awaitable[Any]]) -> Any:
        """The result of a call that is made in the process. Virtual time goes on until it is there."""
        found: list[Any] = []

        async def run() -> None:
            try:
                found.append(await call(self.engine))
            except Exception as error:
                found.append(error)

        self.node.begin(run)
        self.world.run(lambda: bool(found), limit=self.world.time + _HOUR)
        if not found:
            raise RuntimeError(f"Nothing came of it within an hour of virtual time: {self.world.errors}")
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def counted(self, counting: Counting, call: Callable[[Engine], Awaitable[Any]]) -> Totals:
        """The same, counted."""
        totals = self.node.totals = Totals()
        if isinstance(counting, Calls):
            counting.watch({End.write.__code__: totals.write, asyncio.Handle._run.__code__: totals.handle})
            self._offload.count(totals)
        self.node.counting = counting
        try:
            self.do(call)
        finally:
            self.node.counting = None
            self._offload.count(None)
        return totals
