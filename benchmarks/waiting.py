"""How long one caller waits for one delivery, the statements of an idle process, and the gain of more
connections.

    python -m benchmarks.waiting [--sends N] [--rounds N] [--callers N] [--seconds N]

1. Milliseconds from the call of `send` to the end of `wait`: one caller, one device, one send after the other, a
   transport that answers at once. SQLite (FULL) and PostgreSQL (fsync on) with the worker in the caller's process;
   PostgreSQL with the worker in another process.
2. Statements a second that reach the server from one idle process, counted in the server's log: with LISTEN, and with
   `prepared=off`.
3. Single sends until they are settled, by many callers, with `pool=4` and `pool=16`, in turns.

Server and client share the CPUs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fanout
from benchmarks.engine import Instant
from benchmarks.postgres import engine
from benchmarks.rig import enter
from benchmarks.row import Row
from fanout import bootstrap
from fanout_kit.postgres import MISSING, PostgresServer, find_programs

__all__ = ["run"]


async def _lone(storage: str, sends: int, *, elsewhere: bool = False) -> list[float]:
    """Milliseconds of each send until its delivery has ended."""
    async with engine(storage, Instant(), role="submit" if elsewhere else "both") as opened:
        await enter(opened, "push", ["device"])
        taken = []
        for number in range(sends + 5):
            begun = time.perf_counter()
            status = await (await opened.send(fanout.Notification(title="Hello"), "user:u0")).wait(60)
            if status.counts["accepted"] != 1:
                raise RuntimeError(f"not accepted: {dict(status.counts)}")
            if number >= 5:  # the first ones connect and prepare
                taken.append((time.perf_counter() - begun) * 1e3)
        return taken


@contextmanager
def _worker(storage: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.waiting", "--worker", storage]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.stdin.close()
            process.wait()


async def _work(storage: str) -> None:
    async with engine(storage, Instant()):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def lone(server: PostgresServer, folder: Path, sends: int) -> list[Row]:
    """Figure 1."""
    own, other = server.url(server.fresh()), server.url(server.fresh())
    found = {
        "SQLite, same process": asyncio.run(_lone(f"sqlite:{folder}/lone.db", sends)),
        "PostgreSQL, same process": asyncio.run(_lone(own, sends)),
    }
    asyncio.run(_lone(other, 1))  # makes the tables
    with _worker(other):
        found["PostgreSQL, another process delivers"] = asyncio.run(_lone(other, sends, elsewhere=True))
    return [
        Row(
            f"one caller, send and wait, {name}",
            statistics.median(taken),
            "ms",
            note=f"least {min(taken):.1f}, p90 {sorted(taken)[int(len(taken) * 0.9)]:.1f}, of {len(taken)}",
        )
        for name, taken in found.items()
    ]


def idle(server: PostgresServer, seconds: float) -> list[Row]:
    """Figure 2. The server logs each statement of that time."""
    rows = []
    for name, more in (("direct connections", {}), ("prepared=off", {"prepared": "off"})):
        place = server.url(server.fresh(), **more)
        asyncio.run(_lone(place, 1))
        with _worker(place):
            time.sleep(3)  # one-time work after the start is over
            server.sql("ALTER SYSTEM SET log_statement = 'all'")
            server.sql("SELECT pg_reload_conf()")
            time.sleep(1)
            before = _logged(server)
            time.sleep(seconds)
            count = _logged(server) - before
            server.sql("ALTER SYSTEM RESET log_statement")
            server.sql("SELECT pg_reload_conf()")
        rows.append(Row(f"idle process, {name}", count / seconds, "statements/s", note=f"in {seconds:.0f} s"))
    return rows


def _logged(server: PostgresServer) -> int:
    text = (server.folder / "server.log").read_text()
    return sum("LOG:  execute" in line or "LOG:  statement" in line for line in text.splitlines())


async def _singles(storage: str, callers: int, sends: int) -> float:
    """Single sends a second until they are settled."""
    async with engine(storage, Instant()) as opened:
        await enter(opened, "push", (f"device-{number}" for number in range(callers)))
        left = iter(range(sends))

        async def call(user: str) -> None:
            for _ in left:
                await (await opened.send(fanout.Notification(title="Hello"), user)).wait(60)

        await asyncio.gather(*(call(f"user:u{number}") for number in range(callers)))
        left = iter(range(sends))
        begun = time.perf_counter()
        await asyncio.gather(*(call(f"user:u{number}") for number in range(callers)))
        return sends / (time.perf_counter() - begun)


def pools(server: PostgresServer, rounds: int, callers: int) -> list[Row]:
    """Figure 3."""
    rates: dict[int, list[float]] = {4: [], 16: []}
    for _ in range(rounds):
        for pool, taken in rates.items():
            taken.append(asyncio.run(_singles(server.url(server.fresh(), pool=pool), callers, callers * 15)))
    ratios = [large / small for large, small in zip(rates[16], rates[4], strict=True)]
    return [
        Row(f"single sends settled, {callers} callers, pool=4", statistics.median(rates[4]), "sends/s"),
        Row(
            f"single sends settled, {callers} callers, pool=16",
            statistics.median(rates[16]),
            "sends/s",
            "pool=4",
            statistics.median(ratios),
            spread=(min(ratios), max(ratios)),
        ),
    ]


def run(*, sends: int = 300, rounds: int = 5, callers: int = 200, seconds: float = 20.0) -> list[Row]:
    """The three figures, as rows."""
    if find_programs() is None:
        return [Row("PostgreSQL", 0.0, "", note=f"skipped: {MISSING}")]
    with PostgresServer.start(fsync=True) as server, tempfile.TemporaryDirectory() as name:
        return [*lone(server, Path(name), sends), *idle(server, seconds), *pools(server, rounds, callers)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        bootstrap.dedicate_process()
        asyncio.run(_work(arguments.worker))
        return
    for row in run(
        sends=arguments.sends, rounds=arguments.rounds, callers=arguments.callers, seconds=arguments.seconds
    ):
        print(row)


if __name__ == "__main__":
    main()
