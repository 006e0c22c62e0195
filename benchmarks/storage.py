"""The cost of the SQLite storage per delivery: register, put, expand, lease, resolve, settle, with `synchronous=FULL`.

python -m benchmarks.storage [endpoints]
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.row import Row
from fanout.core.address import Address
from fanout.core.endpoint import Registration
from fanout.core.ids import notification_id
from fanout.core.model import Target
from fanout.core.records import Chunk, RetryRow, Settlement, Submission
from fanout.plugin import StorageContext
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock

NOW = 1_800_000_000.0
_BATCH = 10_000


def _registrations(n: int, rng: random.Random) -> list[Registration]:
    return [
        Registration(
            user=f"user-{i // 2}",
            binding="apns",
            address=Address(rng.randbytes(32).hex(), kind="device"),
            tags=("news",) if i % 2 else (),
        )
        for i in range(n)
    ]


def _submission(target: Target, rng: random.Random) -> Submission:
    return Submission(
        id=notification_id(NOW, rng.randbytes(10)),
        app="default",
        target=target,
        content=b'{"body":"It is over.","title":"Final score"}',
        lane=1,
        repeat="prefer_delivery",
        accepted_at=NOW,
        due_at=NOW,
        expires_at=NOW + 86_400,
    )


class _Watch:
    """Adds up seconds by name: of the wall clock, and of this process's processors."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    async def __call__(self, name: str, call: Awaitable[Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return await call
        finally:
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu

    def rows(self, per: int, what: str) -> list[Row]:
        """A line for each name: nanoseconds of processor time for each of so many, and of the wall clock beside it."""
        return [
            Row(name, self.cpu[name] / per * 1e9, f"ns of CPU {what}", note=f"{wall / per * 1e9:,.0f} ns of the clock")
            for name, wall in self.wall.items()
        ]

    def sum(self, per: int, name: str, what: str) -> Row:
        """All of it together."""
        wall = sum(self.wall.values()) / per * 1e9
        return Row(name, sum(self.cpu.values()) / per * 1e9, f"ns of CPU {what}", note=f"{wall:,.0f} ns of the clock")


async def _broadcast(storage: SqliteStorage, watch: _Watch, rng: random.Random) -> int:
    """One broadcast to all: expand, lease, resolve, settle in two halves, one in a hundred retried."""
    sub = _submission(Target.all(), rng)
    await watch("put one broadcast", storage.put([sub], NOW))
    delivered = 0
    while True:
        await watch("expand", storage.expand("default", "apns", NOW, ahead=4))
        chunks: list[Chunk] = await watch(
            "lease", storage.lease("w", "default", "apns", 1, limit=2000, now=NOW, until=NOW + 30)
        )
        if not chunks:
            break
        ids = array("q")
        for chunk in chunks:
            ids.extend(chunk.ids)
        rows = await watch("resolve", storage.resolve(ids, NOW))
        assert len(rows) == len(ids)
        for half in (0, 1):
            settlements = []
            for chunk in chunks:
                size = len(chunk.ids)
                mine = range(size // 2) if half == 0 else range(size // 2, size)
                retries = [RetryRow(p, NOW + 60, 2, "backoff", "busy") for p in mine if p % 100 == 0]
                accepted = [p for p in mine if p % 100]
                settlements.append(
                    Settlement(chunk.id, chunk.epoch, {("accepted", ""): accepted}, retries, attempts=len(mine))
                )
            await watch("settle", storage.settle(settlements, NOW))
        delivered += len(ids)
    while True:
        chunks = await watch(
            "lease retries", storage.lease("w", "default", "apns", 1, limit=2000, now=NOW + 61, until=NOW + 91)
        )
        if not chunks:
            break
        done = [Settlement(c.id, c.epoch, {("accepted", ""): list(range(len(c.ids)))}) for c in chunks]
        await watch("settle retries", storage.settle(done, NOW + 61))
    status = await storage.status(sub.id, NOW)
    assert status is not None
    assert status.state == "done"
    assert status.counts["accepted"] == delivered
    return delivered


async def _puts(storage: SqliteStorage, rng: random.Random, clients: int, total: int, users: int) -> float:
    """Submissions to single users by so many clients at once; how many a second were durable."""

    async def client() -> None:
        for _ in range(total // clients):
            await storage.put([_submission(Target.user(f"user-{rng.randrange(users)}"), rng)], NOW)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return total / (time.perf_counter() - began)


async def _calls(name: str, call: Callable[[], Awaitable[Any]], times: int = 500) -> Row:
    began = time.perf_counter()
    for _ in range(times):
        await call()
    return Row(name, (time.perf_counter() - began) / times * 1e6, "us a call, of the clock")


def _size(folder: Path) -> int:
    """Bytes of the database and its log, which SQLite moves into it later."""
    return sum(each.stat().st_size for each in folder.glob("bench.db*"))


async def _measure(n: int, folder: Path) -> list[Row]:
    rng = random.Random(7)
    path = folder / "bench.db"
    registrations = _registrations(n, rng)
    async with SqliteStorage(str(path), StorageContext(clock=VirtualClock(NOW))) as storage:
        watch = _Watch()
        for first in range(0, n, _BATCH):
            await watch("register", storage.register(registrations[first : first + _BATCH], NOW))
        rows = watch.rows(n, "an endpoint")
        watch, again = _Watch(), min(n, 100_000)
        for first in range(0, again, _BATCH):
            await watch("register again", storage.register(registrations[first : first + _BATCH], NOW + 1))
        rows += watch.rows(again, "an endpoint")
        del registrations
        size = _size(folder)
        rows.append(Row("size of the files", size / n, "bytes an endpoint"))
        watch = _Watch()
        delivered = await _broadcast(storage, watch, rng)
        rows += watch.rows(delivered, "a delivery")
        rows.append(watch.sum(delivered, "a broadcast, all of storage", "a delivery"))
        for clients in (1, 10, 100):
            rate = await _puts(storage, rng, clients, 500 * clients if clients < 100 else 10_000, n // 2)
            rows.append(Row(f"put, {clients} callers at once", rate, "a second, durable"))
        rows.append(await _calls("changes", storage.changes))
        rows.append(await _calls("waiting", lambda: storage.waiting("default", "apns", NOW)))
    return rows


def run(*, endpoints: int = 200_000) -> list[Row]:
    """Measure with a directory of so many endpoints, on the disk of the current folder."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-", dir=".") as folder:
        return asyncio.run(_measure(endpoints, Path(folder)))


if __name__ == "__main__":
    for row in run(endpoints=int(sys.argv[1]) if len(sys.argv) > 1 else 200_000):
        print(row)
