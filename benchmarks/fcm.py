"""How fast FCM pushes go out, from `engine.send` to the committed settlement, beside firebase-admin's
`send_each_async`.

    python -m benchmarks.fcm [--rounds N] [--devices N] [--messages N]

Both talk to one lean simulator, which checks nothing and names each message as Google does. Ours is a broadcast to
`--devices` registered devices in an SQLite file with `synchronous=FULL`: a delivery counts once its settlement is
committed; the rate shaper is off. firebase-admin sends `--messages` in batches of 500, the most that it takes, and
remembers nothing. They take turns, and the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fanout
from benchmarks import rig
from benchmarks.rig import BODY, TITLE, Meter, Process, Sample, broadcast, child, cpu_of, on_client_cpu, simulator
from benchmarks.row import Row
from fanout_fcm.simulator import FcmSimulator

__all__ = ["run"]

BATCH = 500
MISSING = "skipped: pip install '.[bench]' to compare with firebase-admin"
THEIRS, OURS = "FCM, firebase-admin send_each_async", "FCM, ours, durable"


async def send_each(pid: int, url: str, messages: int) -> Sample:
    """The calls of a program written with firebase-admin: batches of 500, one after the other."""
    import firebase_admin
    from firebase_admin import credentials, messaging
    from google.oauth2.credentials import Credentials

    class Fixed(credentials.Base):
        """A token that never expires: fetching one is not measured."""

        def get_credential(self) -> Any:
            return Credentials(token="ya29.simulated")

    messaging._MessagingService.FCM_URL = url + "/v1/projects/{0}/messages:send"
    firebase_admin.initialize_app(Fixed(), {"projectId": "simulated-project"})
    process = Process(pid)

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


def run(*, rounds: int = 3, devices: int = 100_000, messages: int = 2000) -> list[Row]:
    """The comparison, as rows. Without firebase-admin only ours."""
    compare = find_spec("firebase_admin") is not None
    samples: dict[str, list[Sample]] = {THEIRS: [], OURS: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with simulator(folder, "fcm", "--options", '{"streams": 1000}') as (process, settings), on_client_cpu():

            def theirs() -> Sample:
                words = ("--baseline", str(process.pid), settings["gateway"], str(messages))
                # It warns of each `token`, which it calls deprecated, and takes nothing else in the versions before.
                environment = {"SSL_CERT_FILE": settings["ca_file"], "PYTHONWARNINGS": "ignore"}
                return Sample(*child("benchmarks.fcm", *words, environment=environment))

            async def main() -> None:
                transports = {"fcm": settings | {"rate_per_minute": 0}}
                async with fanout.open(storage=f"sqlite:{folder}/bench.db", transports=transports) as engine:
                    await rig.enter(engine, "fcm", map(FcmSimulator.address, range(devices)))
                    await broadcast(engine, process)  # warm: connections, prepared statements, page cache
                    for _ in range(rounds):
                        if compare:
                            samples[THEIRS].append(await asyncio.to_thread(theirs))
                        samples[OURS].append(await broadcast(engine, process))

            asyncio.run(main())
    where = rig.cores(server="simulator")
    rows = rig.compared(samples, THEIRS, word="firebase-admin", cores=where, figure="FCM pushes a second")
    return rows if compare else [Row(MISSING, 0.0, ""), *rows]


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
