"""The cost of one durable delivery, from `engine.send` to the committed settlement, beside aioapns with nothing
durable.

    python -m benchmarks.broadcast [--rounds N] [--devices N] [--no-rivals]

Both talk to one nginx, which echoes `apns-id`. Ours is a broadcast to `--devices` registered devices in an SQLite file
with `synchronous=FULL`: a delivery counts once its settlement is committed. aioapns is driven by 500 workers that take
device tokens from a queue, and remembers nothing; it has a process of its own, so that neither disturbs the other's
figures. hyper, apns2 and Pushy are driven likewise, each by a program in its own language that was built at its first
use.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import fanout
from benchmarks import rig
from benchmarks.contenders.apns import aioapns, job_of, run_client
from benchmarks.contenders.driven import driven
from benchmarks.contenders.rivals import APNS2, HYPER, PUSHY, present
from benchmarks.rig import Process, Sample, broadcast, child, cpu_of, enter, gateway, nginx, on_client_cpu
from benchmarks.row import Row

__all__ = ["run"]

BASELINE = "aioapns, nothing durable"
OURS, OURS_UVLOOP = "ours, durable", "ours, durable, uvloop"


def run(*, rounds: int = 3, devices: int = 200_000, with_rivals: bool = True) -> list[Row]:
    """The comparison, as rows; an absent contender is named in its line."""
    rivals, skipped = present(HYPER, APNS2, PUSHY) if with_rivals else ([], [])
    named = {f"{rival.name}, nothing durable": rival for rival in rivals}
    samples: dict[str, list[Sample]] = {name: [] for name in (BASELINE, *named, OURS, OURS_UVLOOP)}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        rig.make_certificate(folder)
        port = rig.free_port()
        url = f"https://127.0.0.1:{port}"

        async def main(first: bool) -> Sample:
            transports = {"apns": rig.apns_settings(url, folder)}
            async with fanout.open(storage=f"sqlite:{folder}/bench.db", transports=transports) as engine:
                if first:
                    await enter(engine, "apns", (f"{n + 1:064x}" for n in range(devices)))
                # Connections and statements are warm in any process that has lived for a second.
                await (await engine.send(fanout.Notification(title="Warm up"), "user:u0")).wait(60)
                return await broadcast(engine, process)

        process = stack.enter_context(gateway(nginx(folder, port), port))
        job = job_of(url, folder / "cert.pem", max(500, devices // 2))
        drivers = {name: stack.enter_context(driven(rival, job)) for name, rival in named.items()}
        stack.enter_context(on_client_cpu(dedicated=True))
        for number in range(rounds):
            words = ("--baseline", str(process.pid), url, str(folder), str(max(200, devices // 40)))
            theirs = child("benchmarks.broadcast", *words)
            samples[BASELINE].append(Sample(*theirs))
            for name, driver in drivers.items():
                samples[name].append(driver.run(lambda: cpu_of(process)))
            samples[OURS].append(rig.run_async(main(number == 0)))
            samples[OURS_UVLOOP].append(rig.run_async(main(False), uvloop=True))
    rows = rig.compared(
        samples, BASELINE, "cost", word="less than aioapns", cores=rig.cores(), figure="client CPU per durable delivery"
    )
    rows += [
        rig.against(
            OURS_UVLOOP,
            samples[OURS_UVLOOP],
            name,
            samples[name],
            "cost",
            word=f"less than {rival.name}",
            cores=rig.cores(),
        )
        for name, rival in named.items()
    ]
    return [row._replace(name=f"client CPU per delivery, {row.name}") for row in rows] + skipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--no-rivals", action="store_true", help="without hyper, apns2 and Pushy")
    parser.add_argument("--baseline", nargs=4, metavar=("PID", "URL", "FOLDER", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.baseline:
        pid, url, folder, requests = arguments.baseline
        print(json.dumps(run_client(aioapns, Process(int(pid)), url, f"{folder}/cert.pem", int(requests))))
        return
    for row in run(rounds=arguments.rounds, devices=arguments.devices, with_rivals=not arguments.no_rivals):
        print(row)


if __name__ == "__main__":
    main()
