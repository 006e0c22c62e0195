"""What one durable delivery costs, from `engine.send` to the committed settlement, beside aioapns with nothing durable.

    python -m benchmarks.broadcast [--rounds N] [--devices N]

Both talk to one nginx, which echoes `apns-id`. Ours is a broadcast to `--devices` registered devices in an SQLite file with
`synchronous=FULL`: a delivery counts once its settlement is committed. aioapns is driven by 500 workers that take device tokens
from a queue, and remembers nothing. CPU is the client process's, all threads; the client has CPU 0, nginx CPU 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fanout
from benchmarks.http_client import (
    CLIENT_CPU,
    Row,
    Sample,
    aioapns,
    cpu_of,
    free_port,
    gateway,
    make_certificate,
    nginx,
    run_client,
)
from benchmarks.meter import Meter
from fanout import bootstrap
from fanout.engine import Engine

TOPIC = "com.example.app"
BASELINE = "aioapns, nothing durable"


def make_key() -> str:
    """A .p8 key of its own for this run."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


@asynccontextmanager
async def apns_engine(storage: str, url: str, folder: Path) -> AsyncIterator[Engine]:
    """An engine with one APNs binding that talks to `url`."""
    binding = {
        "team_id": "ABCDE12345",
        "key_id": "ABCDE12345",
        "key": make_key(),
        "topic": TOPIC,
        "gateway": url,
        "ca_file": str(folder / "cert.pem"),
    }
    async with fanout.open(storage=storage, transports={"apns": binding}) as engine:
        yield engine


async def enter_devices(engine: Engine, count: int) -> None:
    """Register `count` devices of as many users, through the directory's own import."""
    lines = (b'{"user":"u%d","transport":"apns","address":"%064x"}' % (n, n + 1) for n in range(count))
    report = await engine.endpoints.import_(lines)
    if report.imported != count:
        raise RuntimeError(f"only {report.imported} devices were registered")


async def broadcast(engine: Engine, process: subprocess.Popen[bytes] | None) -> Sample:
    """One notification to everyone, until the last settlement is committed."""
    notification = fanout.Notification(title="Storm warning", body="Gale-force winds from the west after six.")
    gateway_before = cpu_of(process) if process else 0.0
    with Meter() as meter:
        status = await (await engine.send(notification, "all")).wait(600)
    total = status.counts["accepted"]
    if total != status.total:
        raise RuntimeError(f"not all were accepted: {dict(status.counts)}")
    return Sample(total, meter.cpu, cpu_of(process) - gateway_before if process else 0.0, meter.wall)


def run(*, rounds: int = 3, devices: int = 200_000) -> list[Row]:
    """The comparison, as rows."""
    samples: dict[str, list[Sample]] = {BASELINE: [], "ours, durable": [], "ours, durable, uvloop": []}
    before = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificate(folder)
        port = free_port()
        url = f"https://127.0.0.1:{port}"

        async def main(enter: bool) -> Sample:
            async with apns_engine(f"sqlite:{folder}/bench.db", url, folder) as engine:
                if enter:
                    await enter_devices(engine, devices)
                # Connections and statements are warm in any process that has lived for a second.
                await (await engine.send(fanout.Notification(title="Warm up"), "user:u0")).wait(60)
                return await broadcast(engine, process)

        with gateway(nginx(folder, port), port) as process:
            os.sched_setaffinity(0, {CLIENT_CPU})
            bootstrap.dedicate_process()  # as `fanout work` does
            try:
                for number in range(rounds):
                    samples["ours, durable"].append(_run(main(number == 0), uvloop=False))
                    samples["ours, durable, uvloop"].append(_run(main(False), uvloop=True))
                    samples[BASELINE].append(_baseline(process, url, folder))
            finally:
                os.sched_setaffinity(0, before)
    return rows(samples)


def _run(coroutine: Coroutine[Any, Any, Sample], *, uvloop: bool) -> Sample:
    factory = None
    if uvloop:
        import uvloop as fast

        factory = fast.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


def _baseline(process: subprocess.Popen[bytes], url: str, folder: Path) -> Sample:
    """aioapns in a process of its own, so that neither disturbs the other's figures."""
    import json
    import sys

    command = [sys.executable, "-m", "benchmarks.broadcast", "--baseline", str(process.pid), url, str(folder)]
    out = subprocess.run(command, capture_output=True, check=True).stdout
    return Sample(*json.loads(out))


def rows(samples: Mapping[str, list[Sample]]) -> list[Row]:
    def cost(sample: Sample) -> float:
        return sample.cpu / sample.requests * 1e6

    found = []
    for name, taken in samples.items():
        pairs = zip(taken, samples[BASELINE], strict=True)
        ratio = statistics.median(cost(theirs) / cost(own) for own, theirs in pairs)
        rate = statistics.median(s.requests / s.wall for s in taken)
        nginx_cpu = statistics.median(s.gateway_cpu / s.requests * 1e6 for s in taken)
        found.append(
            Row(
                f"client CPU per delivery, {name}",
                statistics.median(map(cost, taken)),
                "us",
                "less than aioapns" if name != BASELINE else "",
                ratio,
                f"{rate:,.0f}/s; nginx {nginx_cpu:.1f} us",
            )
        )
    return found


class _Process:
    """A process that somebody else started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--baseline", nargs=3, metavar=("PID", "URL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.baseline:
        import json

        pid, url, folder = arguments.baseline
        sample = run_client(aioapns, _Process(int(pid)), url, Path(folder), 5000)  # type: ignore[arg-type]
        print(json.dumps(sample))
        return
    for row in run(rounds=arguments.rounds, devices=arguments.devices):
        print(row)


if __name__ == "__main__":
    main()
