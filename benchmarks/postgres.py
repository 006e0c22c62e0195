"""PostgreSQL as the queue, beside SQLite: its cost, and the gain of a second worker.

    python -m benchmarks.postgres [--devices N] [--rounds N] [--import N] [--sends N] [--no-rivals]

1. Deliveries a second with a transport that answers at once, one worker, against the same over SQLite: the client has
   CPU 0 and the server CPU 1. The server's CPU is that of all its processes.
2. Deliveries a second with gateways that answer in 20 ms and a window of `WINDOW` under way per worker: two workers
against one.
   The window limits one worker; the question is whether the database lets the second do as much.
3. Rows written by the server (inserted, updated and deleted, of all tables) for each million deliveries, 1 % of them
   tried twice. And the bytes of its write-ahead log for each.
4. Seconds to import devices through `endpoints.import_`, by one process, and the space of a device on the disk.
5. Notifications to single users a second, beside queues of jobs: `benchmarks.postgres_singles`.

The server runs with `fsync` on; a delivery counts when its settlement is committed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import fanout
from benchmarks.engine import Instant
from benchmarks.postgres_singles import singles
from benchmarks.rig import CLIENT_CPU, GATEWAY_CPU, Meter, Process, Sample, cpu_of, enter, on_client_cpu
from benchmarks.row import Row
from fanout import bootstrap
from fanout.core.policy import Policy, Retention
from fanout.engine import Engine, EngineOptions
from fanout.plugin import ACCEPTED, Delivery, Message, Outcome, Scope, StorageContext, Throttled
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedTransport
from fanout_kit.postgres import MISSING, PostgresServer, find_programs

__all__ = ["own_server", "run"]

WINDOW = 100
_ANSWER = 0.02
_TABLES = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables"

_LOG = "SELECT pg_current_wal_lsn()"
_SIZE = "SELECT pg_database_size(current_database())"


class Flaky(ScriptedTransport):
    """Like `Instant`, but every hundredth endpoint's first attempt is refused as one too many."""

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        if delivery.attempt == 1 and int(delivery.address.rsplit("-", 1)[1]) % 100 == 0:
            return Throttled(0.5, Scope.ENDPOINT, "too often")
        return ACCEPTED


class Slow(ScriptedTransport):
    """Accepts after 20 ms, `WINDOW` at a time."""

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        await asyncio.sleep(_ANSWER)
        return ACCEPTED


@asynccontextmanager
async def engine(
    storage: str,
    transport: ScriptedTransport,
    policy: Policy | None = None,
    *,
    role: Literal["both", "submit"] = "both",
) -> AsyncIterator[Engine]:
    """An engine over that storage with one binding."""
    clock = bootstrap.SystemClock()
    made = Registry().make_storage(storage, StorageContext(clock=clock, retention=Retention()))
    transports = {("default", "push"): transport}
    async with Engine(
        made, transports, EngineOptions(clock=clock, rng=random.Random(), policy=policy or Policy(), role=role)
    ) as opened:
        yield opened


def addresses(count: int) -> Iterator[str]:
    """Of that many devices."""
    return (f"device-{number}" for number in range(count))


async def _fill(storage: str, devices: int) -> float:
    async with engine(storage, Instant()) as opened:
        begun = time.perf_counter()
        await enter(opened, "push", addresses(devices))
        return time.perf_counter() - begun


async def _broadcast(storage: str, transport: ScriptedTransport, policy: Policy | None = None) -> Sample:
    async with engine(storage, transport, policy) as opened:
        await (await opened.send(fanout.Notification(title="Warm up"), "user:u1")).wait(60)
        with Meter() as meter:
            status = await (await opened.send(fanout.Notification(title="Hello"), "all")).wait(3600)
        if status.counts["accepted"] != status.total:
            raise RuntimeError(f"not all were accepted: {dict(status.counts)}")
        return Sample(status.total, meter.cpu, 0.0, meter.wall)


def server_cpu(server: PostgresServer) -> float:
    """Seconds of CPU of all the server's processes, those that have ended too."""
    pid = server.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ended = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    reaped = (int(ended[13]) + int(ended[14])) / os.sysconf("SC_CLK_TCK")
    return cpu_of(Process(pid)) + reaped + sum(cpu_of(Process(int(child))) for child in children)


@contextmanager
def own_server() -> Iterator[PostgresServer]:
    """A server on the other CPU, as durable as in operation."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {GATEWAY_CPU})
    try:
        server = PostgresServer.start(fsync=True, settings={"shared_buffers": "512MB", "max_wal_size": "4GB"})
    finally:
        os.sched_setaffinity(0, before)
    with server:
        yield server


def instant(server: PostgresServer, folder: Path, devices: int, rounds: int) -> list[Row]:
    """Figure 1."""
    places = {"SQLite": f"sqlite:{folder}/instant.db", "PostgreSQL": server.url(server.fresh())}
    samples: dict[str, list[Sample]] = {name: [] for name in places}
    for place in places.values():
        asyncio.run(_fill(place, devices))
    with on_client_cpu(dedicated=True):
        for _ in range(rounds):
            for name, place in places.items():
                before = server_cpu(server)
                sample = asyncio.run(_broadcast(place, Instant()))
                samples[name].append(sample._replace(gateway_cpu=server_cpu(server) - before))
    base = [sample.requests / sample.wall for sample in samples["SQLite"]]
    rows = []
    for name, taken in samples.items():
        rates = [sample.requests / sample.wall for sample in taken]
        ratios = [own / other for own, other in zip(rates, base, strict=True)]
        rows.append(
            Row(
                f"engine with an instant transport, {name}",
                statistics.median(rates),
                "deliveries/s",
                "" if name == "SQLite" else "SQLite",
                statistics.median(ratios),
                spread=(min(ratios), max(ratios)),
                client_cpu=statistics.median(sample.cpu / sample.requests * 1e6 for sample in taken),
                gateway_cpu=statistics.median(sample.gateway_cpu / sample.requests * 1e6 for sample in taken),
                cores=f"client CPU {CLIENT_CPU}, server CPU {GATEWAY_CPU}",
                figure="postgres_instant",
            )
        )
    return rows


def workers(server: PostgresServer, devices: int) -> list[Row]:
    """Figure 2."""
    rates = {}
    for count in (1, 2):
        place = server.url(server.fresh())
        asyncio.run(_fill(place, devices))
        command = [sys.executable, "-m", "benchmarks.postgres", "--worker", place]
        running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
        try:
            for process in running:
                assert process.stdout is not None
                process.stdout.readline()
            rates[count] = asyncio.run(_submit(place))
        finally:
            for process in running:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()
    note = f"answers after {_ANSWER * 1e3:.0f} ms, {WINDOW} under way per worker; workers and server share both CPUs"
    return [
        Row("one worker, gateways of 20 ms", rates[1], "deliveries/s", note=note),
        Row("two workers, gateways of 20 ms", rates[2], "deliveries/s", "one", rates[2] / rates[1]),
    ]


async def _submit(storage: str) -> float:
    async with engine(storage, Slow(capacity=WINDOW), role="submit") as opened:
        await (await opened.send(fanout.Notification(title="Warm up"), "user:u1")).wait(60)
        begun = time.perf_counter()
        status = await (await opened.send(fanout.Notification(title="Hello"), "all")).wait(3600)
        took = time.perf_counter() - begun
        if status.counts["accepted"] != status.total:
            raise RuntimeError(f"not all were accepted: {dict(status.counts)}")
        return status.total / took


async def _work(storage: str) -> None:
    async with engine(storage, Slow(capacity=WINDOW)):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def written(server: PostgresServer, devices: int) -> list[Row]:
    """Figure 3."""
    database = server.fresh()
    place = server.url(database)
    asyncio.run(_fill(place, devices))
    before, log_before = _rows_written(server, database), server.sql(_LOG)
    sample = asyncio.run(_broadcast(place, Flaky(), Policy(backoff_base=0.5)))
    rows = _rows_written(server, database) - before
    log = float(server.sql(f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{log_before}')"))
    return [
        Row(
            "rows written per million deliveries, 1 % tried twice",
            rows * 1e6 / sample.requests,
            "rows",
            note=f"{rows:,} for {sample.requests:,}",
        ),
        Row("write-ahead log per delivery, 1 % tried twice", log / sample.requests, "bytes"),
    ]


def _rows_written(server: PostgresServer, database: str) -> int:
    """As the server has counted them so far: each of its processes reports when it ends, so no other client may be
    connected."""
    while (
        server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()")
        != "0"
    ):
        time.sleep(0.05)
    server.sql("SELECT pg_stat_force_next_flush()", database)
    return int(server.sql(_TABLES, database))


def imported(server: PostgresServer, folder: Path, count: int) -> list[Row]:
    """Figure 4."""
    database = server.fresh()
    empty = int(server.sql(_SIZE, database))
    taken = {
        "SQLite": asyncio.run(_fill(f"sqlite:{folder}/import.db", count)),
        "PostgreSQL": asyncio.run(_fill(server.url(database), count)),
    }
    rows = [
        Row(f"import of {count:,} devices, {name}", seconds, "s", note=f"{count / seconds:,.0f}/s")
        for name, seconds in taken.items()
    ]
    size = int(server.sql(_SIZE, database)) - empty
    return [*rows, Row("PostgreSQL, tables and indexes per endpoint", size / count, "bytes")]


def run(
    *,
    devices: int = 200_000,
    rounds: int = 3,
    imports: int = 1_000_000,
    sends: int = 20_000,
    with_rivals: bool = True,
) -> list[Row]:
    """The five figures, as rows."""
    if find_programs() is None:
        return [Row("PostgreSQL", 0.0, "", note=f"skipped: {MISSING}")]
    with own_server() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *instant(server, folder, devices, rounds),
            *workers(server, devices),
            *written(server, devices),
            *imported(server, folder, imports),
            *singles(server, lambda: server_cpu(server), sends, rounds, with_rivals=with_rivals),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--import", type=int, default=1_000_000, dest="imports")
    parser.add_argument("--sends", type=int, default=20_000)
    parser.add_argument("--no-rivals", action="store_true", help="without River, procrastinate and arq")
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        bootstrap.dedicate_process()
        asyncio.run(_work(arguments.worker))
        return
    rows = run(
        devices=arguments.devices,
        rounds=arguments.rounds,
        imports=arguments.imports,
        sends=arguments.sends,
        with_rivals=not arguments.no_rivals,
    )
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
