"""The engine's addition to the cost of a WNS push: CPU per request, beside a pool of plain aiohttp workers.

    python -m benchmarks.wns [--rounds N] [--pushes N]

The baseline is a program without an engine: as many workers as
connections, one session, and for each device a POST with the token, the TTL and the payload made before. Ours is a
broadcast to as many registered devices in an SQLite file with `synchronous=FULL`, from `engine.send` to the last
committed settlement. They take turns on one lean simulator, and the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

import fanout
from benchmarks import rig
from benchmarks.rig import Meter, Sample, broadcast, cpu_of, on_client_cpu, simulator
from benchmarks.row import Row
from fanout_wns.payload import encode
from fanout_wns.simulator import WnsSimulator

__all__ = ["run"]

CONNECTIONS = 64
NOTE = fanout.Notification(title=rig.TITLE, body=rig.BODY)
THEIRS, OURS = "WNS, plain aiohttp workers: CPU a request", "WNS, ours, durable: CPU a delivery"


def channel(number: int) -> str:
    """Channels of one host: groups would only differ in their names."""
    return WnsSimulator.address(3 * number)


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


def run(*, rounds: int = 5, pushes: int = 10_000) -> list[Row]:
    """The comparison, as rows."""
    ours: list[Sample] = []
    theirs: list[Sample] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with simulator(folder, "wns") as (process, settings), on_client_cpu():

            async def main() -> None:
                transports = {"wns": settings | {"connections": CONNECTIONS}}
                async with (
                    fanout.open(storage=f"sqlite:{folder}/bench.db", transports=transports) as engine,
                    session_to(settings) as session,
                ):
                    await rig.enter(engine, "wns", map(channel, range(pushes)))
                    await broadcast(engine, process, NOTE)  # warm: connections, prepared statements, page cache
                    await workers(session, settings, process, CONNECTIONS * 10)
                    for _ in range(rounds):
                        theirs.append(await workers(session, settings, process, pushes))
                        ours.append(await broadcast(engine, process, NOTE))

            asyncio.run(main())
    ratios = [a.cost / b.cost for a, b in zip(ours, theirs, strict=True)]
    ratio, spread = statistics.median(ratios), (min(ratios), max(ratios))
    about = {"cores": rig.cores(server="simulator"), "figure": "WNS: CPU per push"}
    row = rig.row(OURS, ours, "cost", **about)
    return [
        rig.row(THEIRS, theirs, "cost", **about),
        row._replace(against="aiohttp workers", ratio=ratio, spread=spread),
        Row("WNS, what the engine adds", (ratio - 1) * 100, "%"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pushes", type=int, default=10_000)
    arguments = parser.parse_args()
    for row in run(rounds=arguments.rounds, pushes=arguments.pushes):
        print(row)


if __name__ == "__main__":
    main()
