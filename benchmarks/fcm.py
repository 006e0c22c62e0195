"""How fast FCM pushes go out, from `engine.send` to the committed settlement, beside firebase-admin's `send_each_async`.

    python -m benchmarks.fcm [--rounds N] [--devices N] [--messages N]

Both talk to one lean simulator, which checks nothing and names each message as Google does. Ours is a broadcast to `--devices`
registered devices in an SQLite file with `synchronous=FULL`: a delivery counts once its settlement is committed; the rate shaper
is off. firebase-admin sends `--messages` in batches of 500, the most that it takes, and remembers nothing. They take turns; the
client has CPU 0, the simulator CPU 1, and the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fanout
from benchmarks.http_client import CLIENT_CPU, GATEWAY_CPU, Row, Sample, cpu_of
from benchmarks.meter import Meter
from fanout.engine import Engine
from fanout_fcm.simulator import FcmSimulator

TITLE, BODY = "Storm warning", "Gale-force winds from the west after six."
BATCH = 500
MISSING = "firebase-admin is not installed, so there is nothing to compare with: pip install '.[bench]'"


@contextmanager
def simulator(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A lean simulator on the gateway's CPU, and the settings of a binding that talks to it."""
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "fanout.testing.simulator", "fcm", "--lean", "--ca-dir", str(folder)),
            *("--options", '{"streams": 1000}'),
        ],
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


@asynccontextmanager
async def engine_to(settings: dict[str, Any], storage: str, devices: int) -> AsyncIterator[Engine]:
    """An engine with one FCM binding and this many registered devices."""
    async with fanout.open(storage=storage, transports={"fcm": settings | {"rate_per_minute": 0}}) as engine:
        lines = (
            json.dumps({"user": f"u{n}", "transport": "fcm", "address": FcmSimulator.address(n)}).encode()
            for n in range(devices)
        )
        report = await engine.endpoints.import_(lines)
        if report.imported != devices:
            raise RuntimeError(f"only {report.imported} devices were registered")
        yield engine


async def broadcast(engine: Engine, process: subprocess.Popen[bytes]) -> Sample:
    """One notification to everyone, until the last settlement is committed."""
    before = cpu_of(process)
    with Meter() as meter:
        status = await (await engine.send(fanout.Notification(title=TITLE, body=BODY), "all")).wait(600)
    if status.counts["accepted"] != status.total:
        raise RuntimeError(f"not all were accepted: {dict(status.counts)}")
    assert status.total is not None
    return Sample(status.total, meter.cpu, cpu_of(process) - before, meter.wall)


# -- firebase-admin, in a process of its own, so that neither disturbs the other's figures


def baseline(process: subprocess.Popen[bytes], settings: dict[str, Any], messages: int) -> Sample:
    """One run of firebase-admin."""
    arguments = (str(process.pid), settings["gateway"], str(messages))
    # It warns of each `token`, which it calls deprecated, and takes nothing else in the versions before.
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fcm", "--baseline", *arguments]
    environment = os.environ | {"SSL_CERT_FILE": settings["ca_file"]}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return Sample(*json.loads(done.stdout))


async def send_each(pid: int, url: str, messages: int) -> Sample:
    """What a program written with firebase-admin does: batches of 500, one after the other."""
    import firebase_admin
    from firebase_admin import credentials, messaging
    from google.oauth2.credentials import Credentials

    class Fixed(credentials.Base):
        """A token that never expires: fetching one is not measured."""

        def get_credential(self) -> Any:
            return Credentials(token="ya29.simulated")

    messaging._MessagingService.FCM_URL = url + "/v1/projects/{0}/messages:send"
    firebase_admin.initialize_app(Fixed(), {"projectId": "simulated-project"})
    process: Any = _Process(pid)

    async def send(first: int, count: int) -> None:
        notification = messaging.Notification(title=TITLE, body=BODY)
        batch = [
            messaging.Message(notification=notification, token=FcmSimulator.address(n))
            for n in range(first, first + count)
        ]
        response = await messaging.send_each_async(batch)
        if response.failure_count:
            raise RuntimeError(f"not all were accepted: {response.responses[0].exception!r}")

    await send(0, 100)  # warm: connections, imports
    before = cpu_of(process)
    with Meter() as meter:
        for first in range(0, messages, BATCH):
            await send(first, min(BATCH, messages - first))
    return Sample(messages, meter.cpu, cpu_of(process) - before, meter.wall)


class _Process:
    """A process that somebody else started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


# -- the comparison


def run(*, rounds: int = 3, devices: int = 100_000, messages: int = 2000) -> list[Row]:
    """The comparison, as rows. Without firebase-admin only ours."""
    compare = find_spec("firebase_admin") is not None
    ours: list[Sample] = []
    theirs: list[Sample] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with simulator(folder) as (process, settings):

            async def main() -> None:
                async with engine_to(settings, f"sqlite:{folder}/bench.db", devices) as engine:
                    await broadcast(engine, process)  # warm: connections, prepared statements, page cache
                    for _ in range(rounds):
                        ours.append(await broadcast(engine, process))
                        if compare:
                            theirs.append(await asyncio.to_thread(baseline, process, settings, messages))

            os.sched_setaffinity(0, {CLIENT_CPU})
            asyncio.run(main())
    found = [] if compare else [Row(MISSING, 0.0, "")]
    if compare:
        found.append(_row("FCM, firebase-admin send_each_async", theirs))
    ratios = [_rate(a) / _rate(b) for a, b in zip(ours, theirs, strict=False)]
    against = "firebase-admin" if ratios else ""
    found.append(_row("FCM, ours, durable", ours, against, statistics.median(ratios) if ratios else 0.0))
    return found


def _rate(sample: Sample) -> float:
    return sample.requests / sample.wall


def _row(name: str, samples: list[Sample], against: str = "", ratio: float = 0.0) -> Row:
    rate = statistics.median(map(_rate, samples))
    cpu = statistics.median(s.cpu / s.requests * 1e6 for s in samples)
    busy = statistics.median(s.gateway_cpu / s.wall * 100 for s in samples)
    return Row(name, rate, "/s", against, ratio, f"client {cpu:.1f} us of CPU each; simulator {busy:.0f} % busy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=2000, help="per round, for firebase-admin")
    parser.add_argument("--baseline", nargs=3, metavar=("PID", "URL", "MESSAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.baseline:
        pid, url, messages = arguments.baseline
        print(json.dumps(asyncio.run(send_each(int(pid), url, int(messages)))))
        return
    for row in run(rounds=arguments.rounds, devices=arguments.devices, messages=arguments.messages):
        print(row)


if __name__ == "__main__":
    main()
