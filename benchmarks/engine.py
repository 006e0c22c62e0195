"""The engine without a network, the memory of a large broadcast, and how soon another process's send is delivered.

    python -m benchmarks.engine [--devices N] [--large N] [--sends N]

1. Deliveries a second of engine and durable SQLite with a transport that answers at once, against the push client's
   requests a second on the same core (`benchmarks.http_client`): the engine must not slow the wire.
2. Peak memory (the operating system's high-water mark of a fresh process) of a broadcast to a million endpoints.
3. Seconds from `send` in one process to the transport's call in another that shares the SQLite file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import fanout
from benchmarks import rig
from benchmarks.contenders.apns import bare, run_client
from benchmarks.rig import Sample, broadcast, child, enter, gateway, missing, nghttpd, on_client_cpu
from benchmarks.row import Row
from fanout import bootstrap
from fanout.core.policy import Policy, Retention
from fanout.engine import Engine, EngineOptions
from fanout.plugin import ACCEPTED, Delivery, Message, Outcome, StorageContext
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedTransport

__all__ = ["Instant", "instant_engine", "run"]

_MODULE = "benchmarks.engine"


class Instant(ScriptedTransport):
    """Accepts everything at once, and remembers nothing."""

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        return ACCEPTED


def instant_engine(database: Path | str, transport: ScriptedTransport, role: str = "both") -> Engine:
    """An engine over an SQLite file, or a storage's URL, and a transport that accepts everything at once."""
    clock = bootstrap.SystemClock()
    place = database if isinstance(database, str) else f"sqlite:{database}"
    storage = Registry().make_storage(place, StorageContext(clock=clock, retention=Retention()))
    transports = {("default", "apns"): transport}
    return Engine(storage, transports, EngineOptions(clock=clock, rng=random.Random(), policy=Policy(), role=role))  # type: ignore[arg-type]


async def instant(database: Path, rounds: int) -> list[Sample]:
    """Broadcasts through the instant transport, after one to warm up, in a process that did not register the
    devices."""
    async with instant_engine(database, Instant()) as engine:
        await broadcast(engine, None)
        return [await broadcast(engine, None) for _ in range(rounds)]


async def large(database: Path, devices: int) -> dict[str, float]:
    """A broadcast to many, in a process that did not register them; its peak memory in MB."""
    async with instant_engine(database, Instant()) as engine:
        idle = rig.peak_memory()
        sample = await broadcast(engine, None)
    peak = rig.peak_memory()
    if sample.requests != devices:
        raise RuntimeError(f"{sample.requests} of {devices} were delivered")
    return {"idle": idle, "peak": peak, "rate": sample.requests / sample.wall}


async def other_process(database: Path, sends: int) -> list[float]:
    """Latencies of sends whose delivery is another process's work."""
    begun: dict[str, float] = {}
    took: list[float] = []
    arrived = asyncio.Event()

    def answer(message: object, delivery: object) -> fanout.Accepted:
        took.append(time.time() - begun.pop("now"))
        arrived.set()
        return fanout.Accepted()

    async with instant_engine(database, ScriptedTransport(answer)) as engine:  # type: ignore[arg-type]
        await engine.endpoints.register(user="alice", binding="apns", address="alice-phone")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, "--submit", str(database),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readline()
        for _ in range(sends):
            arrived.clear()
            begun["now"] = time.time()
            process.stdin.write(b"send\n")
            await arrived.wait()
        process.stdin.close()
        await process.wait()
    return took


async def submit(database: Path) -> None:
    """The other process: a send to alice for each line."""
    async with instant_engine(database, ScriptedTransport(), role="submit") as engine:
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            await engine.send(fanout.Notification(title="Hi"), "user:alice")


async def prepare(database: Path, devices: int) -> dict[str, float]:
    """Register many; how many a second."""
    begun = time.perf_counter()
    async with instant_engine(database, ScriptedTransport(), role="submit") as engine:
        await enter(engine, "apns", (f"{n:064x}" for n in range(devices)))
    return {"rate": devices / (time.perf_counter() - begun)}


def beside_the_wire(folder: Path, devices: int, rounds: int) -> list[Row]:
    """Instant deliveries and the push client's requests over TLS to nghttpd, in turns."""
    wire, alone = "the push client's requests", "durable deliveries a second, instant transport"
    samples: dict[str, list[Sample]] = {wire: [], alone: []}
    absent = missing("nghttpd")
    database = str(folder / "instant.db")
    child(_MODULE, "--prepare", database, str(devices))
    port = rig.free_port()
    rig.make_certificate(folder)
    url, ca_file = f"https://127.0.0.1:{port}", str(folder / "cert.pem")
    with nullcontext() if absent else gateway(nghttpd(folder, port), port) as process, on_client_cpu():
        for _ in range(rounds):
            if process is not None:
                samples[wire].append(run_client(bare, process, url, ca_file, devices))
            samples[alone].append(Sample(*child(_MODULE, "--instant", database, "3")))
    rows = rig.compared(samples, wire, cores=f"everything CPU {rig.CLIENT_CPU}")
    return [row for row in rows if row.name == alone] + ([Row(f"{absent} for its ratio", 0.0, "")] if absent else [])


def run(*, devices: int = 200_000, large_devices: int = 1_000_000, sends: int = 50, rounds: int = 3) -> list[Row]:
    """The measurements, as rows."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows += beside_the_wire(folder, devices, rounds)
        entered = child(_MODULE, "--prepare", str(folder / "large.db"), str(large_devices))
        rows.append(Row("registrations a second", entered["rate"], "/s"))
        found = child(_MODULE, "--large-run", str(folder / "large.db"), str(large_devices))
        rows.append(
            Row(
                f"peak memory, broadcast to {large_devices:,}",
                found["peak"],
                "MB",
                note=f"before it {found['idle']:.0f} MB; {found['rate']:,.0f}/s",
            )
        )
        took = asyncio.run(other_process(folder / "two.db", sends))
        rows.append(
            Row(
                "send in another process, to the transport's call",
                statistics.median(took) * 1000,
                "ms",
                note=f"worst of {len(took)}: {max(took) * 1000:.0f} ms",
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--sends", type=int, default=50)
    for flag in ("--instant", "--prepare", "--large-run"):
        parser.add_argument(flag, nargs=2, metavar=("DB", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--submit", metavar="DB", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.submit:
        asyncio.run(submit(Path(chosen.submit)))
    elif chosen.prepare:
        print(json.dumps(asyncio.run(prepare(Path(chosen.prepare[0]), int(chosen.prepare[1])))))
    elif chosen.large_run:
        print(json.dumps(asyncio.run(large(Path(chosen.large_run[0]), int(chosen.large_run[1])))))
    elif chosen.instant:
        bootstrap.dedicate_process()  # as `fanout work` does
        samples = asyncio.run(instant(Path(chosen.instant[0]), int(chosen.instant[1])))
        print(json.dumps(sorted(samples, key=lambda sample: sample.rate)[len(samples) // 2]))
    else:
        for row in run(devices=chosen.devices, large_devices=chosen.large, sends=chosen.sends):
            print(row)


if __name__ == "__main__":
    main()
