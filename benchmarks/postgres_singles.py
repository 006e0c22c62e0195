"""Notifications to single users on PostgreSQL, beside queues of jobs: the last rows of `benchmarks.postgres`.

Each contender takes `sends` from 200 callers, one job each, and works them off in the same process: `accepted` is the
rate until the last `send` or insert has returned, the row's own rate that until all are settled. A job does nothing,
and our transport answers at once. River and procrastinate share our server; arq has Redis, which is not asked to write
anything to a disk. The client has a CPU of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fanout
from benchmarks import rig
from benchmarks.contenders.driven import Driver, driven, started
from benchmarks.contenders.rivals import ARQ, PROCRASTINATE, RIVER, present
from benchmarks.engine import Instant, instant_engine
from benchmarks.rig import Sample
from benchmarks.row import Row
from fanout import bootstrap
from fanout.engine.observing import observe
from fanout_kit.postgres import PostgresServer

__all__ = ["singles"]

CALLERS = 200
OURS, OURS_UVLOOP = "ours", "ours, uvloop"
_USERS = 5_000
_SLOW = {PROCRASTINATE: 20, ARQ: 2}
"""These take so many times fewer, for they take as many times longer."""


def singles(
    server: PostgresServer, server_cpu: Callable[[], float], sends: int, rounds: int, *, with_rivals: bool
) -> list[Row]:
    """All contenders in turns, as rows; an absent contender is named in its line."""
    rivals, skipped = present(RIVER, PROCRASTINATE, ARQ) if with_rivals else ([], [])
    samples: dict[str, list[Sample]] = {name: [] for name in (*(rival.name for rival in rivals), OURS, OURS_UVLOOP)}
    drivers: dict[str, tuple[Driver, Callable[[], float]]] = {}
    job = {"callers": CALLERS, "atOnce": 500, "requests": sends, "warmUp": max(sends // 10, CALLERS)}
    with ExitStack() as stack:
        for rival in rivals:
            few = max(sends // _SLOW.get(rival, 1), CALLERS)
            own = job | {"requests": few, "warmUp": max(few // 10, 20)}
            cpu = server_cpu
            if rival == ARQ:
                port = rig.free_port()
                command = [
                    "redis-server",
                    "--port",
                    str(port),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ]
                process = stack.enter_context(rig.gateway(command, port))
                own |= {"port": port}
                cpu = lambda process=process: rig.cpu_of(process)  # noqa: E731
            else:
                own |= {"url": server.url(server.fresh())}
            drivers[rival.name] = stack.enter_context(driven(rival, own)), cpu
        for name in (OURS, OURS_UVLOOP):
            command = [sys.executable, "-m", "benchmarks.postgres_singles", "--ours", name]
            own = job | {"url": server.url(server.fresh())}
            drivers[name] = stack.enter_context(started(name, Path.cwd(), command, own)), server_cpu
        for _ in range(rounds):
            for name, taken in samples.items():
                driver, cpu = drivers[name]
                taken.append(driver.run(cpu))
    return _rows(samples, {name: driver.accepted for name, (driver, _) in drivers.items()}) + skipped


def _rows(samples: dict[str, list[Sample]], accepted: dict[str, list[float]]) -> list[Row]:
    """Each beside River, where that is to be had."""
    where = rig.cores(server="server")
    rows = []
    for row in rig.compared(samples, RIVER.name, cores=where, figure="single sends a second on PostgreSQL"):
        pairs = zip(samples[row.name], accepted[row.name], strict=True)
        rate = statistics.median(sample.requests / taken for sample, taken in pairs)
        rows.append(row._replace(name=f"single sends, {row.name}", note=f"until settled; accepted at {rate:,.0f}/s"))
    return rows


# -- ours, as a driver


async def _ours(job: dict[str, Any]) -> None:
    async with instant_engine(job["url"], Instant()) as opened:
        await rig.enter(opened, "apns", (f"{number + 1:064x}" for number in range(_USERS)))

        def settled() -> int:
            return sum(view.counters.outcomes.get(("accepted", ""), 0) for view in observe(opened).bindings)

        async def run(sends: int) -> tuple[float, float]:
            numbers, before, begun = iter(range(sends)), settled(), time.perf_counter()
            note = fanout.Notification(title=rig.TITLE, body=rig.BODY)

            async def caller() -> None:
                for number in numbers:
                    await opened.send(note, f"user:u{number % _USERS}")

            await asyncio.gather(*(caller() for _ in range(job["callers"])))
            accepted = time.perf_counter() - begun
            await opened.drain(poll=0.01)
            wall = time.perf_counter() - begun
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    while settled() - before < sends:  # noqa: ASYNC110  # counted some turns of the loop after storage has it
                        await asyncio.sleep(0.001)
            if settled() - before != sends:
                raise RuntimeError(f"only {settled() - before} of {sends} were accepted")
            return accepted, wall

        await run(job["warmUp"])
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            cpu = time.process_time()
            accepted, wall = await run(job["requests"])
            cpu = time.process_time() - cpu
            print(json.dumps({"requests": job["requests"], "cpu": cpu, "wall": wall, "accepted": accepted}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", choices=(OURS, OURS_UVLOOP), required=True)
    chosen = parser.parse_args()
    bootstrap.dedicate_process()
    rig.run_async(_ours(json.loads(sys.stdin.readline())), uvloop=chosen.ours == OURS_UVLOOP)
