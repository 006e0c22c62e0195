"""What the engine adds to the cost of a WNS push: CPU per request, beside a pool of plain aiohttp workers.

    python -m benchmarks.wns [--rounds N] [--pushes N]

WNS speaks HTTP/1.1, so both pay for aiohttp. The baseline is what one writes without an engine: as many workers as connections, one
session, and for each device a POST with the token, the TTL and the payload made before. Ours is a broadcast to as many registered
devices in an SQLite file with `synchronous=FULL`, from `engine.send` to the last committed settlement. They take turns on one lean
simulator; the client has CPU 0, the simulator CPU 1, and the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

import fanout
from benchmarks.http_client import CLIENT_CPU, GATEWAY_CPU, Row, Sample, cpu_of
from benchmarks.meter import Meter
from fanout.engine import Engine
from fanout_wns.payload import encode
from fanout_wns.simulator import WnsSimulator

CONNECTIONS = 64
NOTE = fanout.Notification(title="Storm warning", body="Gale-force winds from the west after six.")


def channel(number: int) -> str:
    """Channels of one host: groups would only differ in their names."""
    return WnsSimulator.address(3 * number)


@contextmanager
def simulator(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A lean simulator on the gateway's CPU, and the settings of a binding that talks to it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fanout.testing.simulator", "wns", "--lean", "--ca-dir", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {GATEWAY_CPU}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())["settings"]
    finally:
        process.stdin.close()
        process.wait()


# -- ours


@asynccontextmanager
async def engine_to(settings: dict[str, Any], storage: str, devices: int) -> AsyncIterator[Engine]:
    """An engine with one WNS binding and this many registered devices."""
    transports = {"wns": settings | {"connections": CONNECTIONS}}
    async with fanout.open(storage=storage, transports=transports) as engine:
        lines = (
            json.dumps({"user": f"u{n}", "transport": "wns", "address": channel(n)}).encode() for n in range(devices)
        )
        report = await engine.endpoints.import_(lines)
        if report.imported != devices:
            raise RuntimeError(f"only {report.imported} devices were registered")
        yield engine


async def broadcast(engine: Engine, process: subprocess.Popen[bytes]) -> Sample:
    """One notification to everyone, until the last settlement is committed."""
    before = cpu_of(process)
    with Meter() as meter:
        status = await (await engine.send(NOTE, "all")).wait(600)
    if status.counts["accepted"] != status.total:
        raise RuntimeError(f"not all were accepted: {dict(status.counts)}")
    assert status.total is not None
    return Sample(status.total, meter.cpu, cpu_of(process) - before, meter.wall)


# -- the baseline


@asynccontextmanager
async def session_to(settings: dict[str, Any]) -> AsyncIterator[aiohttp.ClientSession]:
    """A session as aiohttp's documentation makes it, with as many connections."""
    context = ssl.create_default_context(cafile=settings["ca_file"])
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def workers(
    session: aiohttp.ClientSession, settings: dict[str, Any], process: subprocess.Popen[bytes], pushes: int
) -> Sample:
    """As many POSTs, by as many workers as there are connections."""
    body = encode(NOTE, {}).body
    queue = iter(range(pushes))
    accepted = 0

    async def work() -> None:
        nonlocal accepted
        for number in queue:
            headers = {
                "Authorization": f"Bearer {'x' * 64}",
                "Content-Type": "text/xml",
                "X-WNS-Type": "wns/toast",
                "X-WNS-TTL": "86400",
            }
            target = channel(number).partition(".com")[2]
            url = URL(settings["gateway"] + target, encoded=True)
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()
                accepted += response.status == 200 and response.headers.get("X-WNS-Status") == "received"

    before = cpu_of(process)
    with Meter() as meter:
        await asyncio.gather(*[work() for _ in range(CONNECTIONS)])
    if accepted != pushes:
        raise RuntimeError(f"only {accepted} of {pushes} were accepted")
    return Sample(pushes, meter.cpu, cpu_of(process) - before, meter.wall)


# -- the comparison


def run(*, rounds: int = 5, pushes: int = 10_000) -> list[Row]:
    """The comparison, as rows."""
    ours: list[Sample] = []
    theirs: list[Sample] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with simulator(folder) as (process, settings):

            async def main() -> None:
                async with (
                    engine_to(settings, f"sqlite:{folder}/bench.db", pushes) as engine,
                    session_to(settings) as session,
                ):
                    await broadcast(engine, process)  # warm: connections, prepared statements, page cache
                    await workers(session, settings, process, CONNECTIONS * 10)
                    for _ in range(rounds):
                        theirs.append(await workers(session, settings, process, pushes))
                        ours.append(await broadcast(engine, process))

            os.sched_setaffinity(0, {CLIENT_CPU})
            asyncio.run(main())
    ratio = statistics.median(_cost(a) / _cost(b) for a, b in zip(ours, theirs, strict=True))
    return [
        _row("WNS, plain aiohttp workers: CPU a request", theirs),
        _row("WNS, ours, durable: CPU a delivery", ours, "aiohttp workers", ratio),
        Row("WNS, what the engine adds", (ratio - 1) * 100, "%"),
    ]


def _cost(sample: Sample) -> float:
    return sample.cpu / sample.requests * 1e6


def _row(name: str, samples: list[Sample], against: str = "", ratio: float = 0.0) -> Row:
    cost = statistics.median(map(_cost, samples))
    rate = statistics.median(s.requests / s.wall for s in samples)
    busy = statistics.median(s.gateway_cpu / s.wall * 100 for s in samples)
    return Row(name, cost, "us", against, ratio, f"{rate:.0f}/s; simulator {busy:.0f} % busy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pushes", type=int, default=10_000)
    arguments = parser.parse_args()
    for row in run(rounds=arguments.rounds, pushes=arguments.pushes):
        print(row)


if __name__ == "__main__":
    main()
