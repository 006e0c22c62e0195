"""Opens many event streams over loopback and measures them: `python tests/feed/streams_load.py 10000`.

One process serves and this one reads; changes are made by this one, as another opener of the same database. Prints the
server's memory per stream, how long after its commit a change reaches its user's stream, and how long a broadcast takes
to reach all.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import tempfile
import time
from pathlib import Path

import psutil

from fanout.config import Limits
from fanout.engine import Engine, EngineOptions
from fanout.engine.engine import Role
from fanout.plugin import Policy, StorageContext
from fanout.registry import Registry
from fanout.service.app import create_app
from fanout.service.feed import FeedService, FeedSettings, NewItem
from fanout.service.server import serving
from fanout.testing.scripted import ScriptedTransport

TRIALS = 200
AT_ONCE = 200


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def engine(database: str, role: Role) -> Engine:
    storage = Registry().make_storage(f"sqlite:{database}", StorageContext(clock=Clock()))
    transports = {("default", "push"): ScriptedTransport(record=False)}
    return Engine(storage, transports, EngineOptions(clock=Clock(), rng=random.Random(1), policy=Policy(), role=role))


def spare_collector() -> None:
    """As `fanout serve` does: ten thousand streams are a million objects, which the cycle collector would look at again
    and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def serve(database: str) -> None:
    """Serve until standard input ends."""
    app = create_app(engine(database, "both"), clock=Clock(), feed=FeedSettings(streams=100_000), unprotected=True)
    async with app.state.service, serving(app, "127.0.0.1", 0, Limits()) as url:
        spare_collector()
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        await app.state.service.feed.close_streams()


class Readers:
    """The streams: of each user, when a change arrived last."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.open = 0
        self.arrived: dict[int, float] = {}

    async def read(self, user: int) -> None:
        local = f"127.0.0.{2 + user // 5000}"
        reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=(local, 0), limit=2**14)
        head = f"host: {self.host}:{self.port}\r\nx-fanout-user: u{user}\r\naccept: text/event-stream\r\n"
        writer.write(f"GET /v1/me/feed/events HTTP/1.1\r\n{head}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"event: change"):
                self.arrived[user] = time.time()
            elif line.startswith(b"event: cursor"):
                self.open += 1


def said(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def measure(streams: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "load.db")
        server = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "serve", database, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert server.stdout is not None
        assert server.stdin is not None
        readers = Readers((await server.stdout.readline()).decode().strip())
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        tasks: list[asyncio.Task[None]] = []
        for first in range(0, streams, AT_ONCE):
            tasks += [asyncio.create_task(readers.read(n)) for n in range(first, min(first + AT_ONCE, streams))]
            while readers.open < len(tasks):
                await asyncio.sleep(0.01)
        spare_collector()
        await asyncio.sleep(FeedSettings().heartbeat + 2)  # until every stream has had a sign of life
        rss = process.memory_info().rss
        said(f"{streams} streams: {rss / 1e6:.0f} MB resident, {(rss - before) / streams / 1e3:.1f} kB for each")
        async with engine(database, "submit") as posting, FeedService(posting) as feed:
            waits = []
            for n in range(TRIALS):
                user = random.randrange(streams)
                readers.arrived.pop(user, None)
                await feed.post("default", f"user:u{user}", NewItem(content={"n": n}))
                committed = time.time()
                while user not in readers.arrived:
                    await asyncio.sleep(0.001)
                waits.append(readers.arrived[user] - committed)
            waits.sort()
            p50, p99 = waits[TRIALS // 2], waits[TRIALS * 99 // 100]
            said(
                f"a change of another process: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, most {waits[-1] * 1e3:.0f} ms"
            )
            readers.arrived.clear()
            await feed.post("default", "all", NewItem(content={}))
            committed = time.time()
            while len(readers.arrived) < streams:
                await asyncio.sleep(0.01)
            said(f"a broadcast: the last stream after {max(readers.arrived.values()) - committed:.2f} s")
        began = time.time()
        server.stdin.close()
        await asyncio.gather(*tasks)
        said(f"all streams ended {time.time() - began:.2f} s after they were closed")
        await server.wait()


asyncio.run(serve(sys.argv[2]) if sys.argv[1] == "serve" else measure(int(sys.argv[1])))
