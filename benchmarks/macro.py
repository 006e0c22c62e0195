"""Whole tasks: a large broadcast, notifications to single users, an outage, mixed transports, acceptance, and a cold
start.

    python -m benchmarks.macro [--devices N] [--sends N] [--outage SECONDS] [--starts N]

Over TLS to nginx (mixed transports: to the lean simulators), with SQLite and `synchronous=FULL`; a delivery counts once
its settlement is committed. The client's processes are set as `fanout work` sets its own, with uvloop where it is
installed. Urgent alerts beside a bulk broadcast are `benchmarks.lanes`.

Bytes are those of the loopback interface, both ways, headers of TCP and acknowledgements included; on a machine where
others use loopback they are too many. Row writes are SQLite's own count of changed rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import fanout
from benchmarks import rig
from benchmarks.rig import Meter, Process, Sample, broadcast, child, enter, gateway, missing, nginx, on_client_cpu
from benchmarks.row import Row
from fanout import bootstrap
from fanout.engine import Engine
from fanout.engine.observing import observe

__all__ = ["run"]

NOTE = fanout.Notification(title=rig.TITLE, body=rig.BODY)
_MODULE = "benchmarks.macro"
_CALLERS = 200
"""Callers that send one after the other, as a busy web application has them."""
_PAGES = 12
"""Pages that the commit of one accepted notification writes: counted by `strace`."""
_BARE = "acceptance: SQLite alone, commits of as many pages"


def _loopback() -> int:
    """Bytes that went over the loopback interface since the machine was started; 0 where that is not known."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.strip().startswith("lo:")), 0)


async def _rows_written(engine: Engine) -> int:
    """Asked on the storage's own thread, for the connection is used by one at a time."""
    storage: Any = engine.storage
    changes: int = await storage._read(lambda db: db.connection.total_changes())
    return changes


def _accepted(engine: Engine) -> int:
    """Deliveries whose acceptance this engine has stored."""
    return sum(view.counters.outcomes.get(("accepted", ""), 0) for view in observe(engine).bindings)


# -- in a process of its own


async def _prepare(job: Mapping[str, Any]) -> None:
    async with _open(job, role="submit") as engine:
        await enter(engine, "apns", (f"{n + 1:064x}" for n in range(job["devices"])))


def _open(job: Mapping[str, Any], role: Any = "both") -> Engine:
    return fanout.open(storage=f"sqlite:{job['database']}", transports=job["transports"], role=role)


async def _broadcast(job: Mapping[str, Any]) -> dict[str, Any]:
    """A notification to all users, in a process that did not register them."""
    async with _open(job) as engine:
        await (await engine.send(NOTE, "user:u0")).wait(60)
        idle, rows, bytes_before = rig.peak_memory(), await _rows_written(engine), _loopback()
        sample = await broadcast(engine, Process(job["gateway"]), NOTE)
        return {
            "sample": sample,
            "memory": rig.peak_memory(),
            "idle": idle,
            "rows": await _rows_written(engine) - rows,
            "bytes": _loopback() - bytes_before,
        }


async def _send(engine: Engine, sends: int, users: int, callers: int) -> float:
    """To single users, one after the other by so many callers; seconds until all are accepted."""
    numbers = iter(range(sends))

    async def caller() -> None:
        for number in numbers:
            await engine.send(NOTE, f"user:u{number % users}")

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - begun


async def _singles(job: Mapping[str, Any]) -> dict[str, Any]:
    """From `send` to settled."""
    sends = job["sends"]
    async with _open(job) as engine:
        await _send(engine, sends // 10, job["devices"], _CALLERS)
        await engine.drain(poll=0.01)
        before = _accepted(engine)
        gateway_before = rig.cpu_of(Process(job["gateway"]))
        with Meter() as meter:
            accepted_after = await _send(engine, sends, job["devices"], _CALLERS)
            await engine.drain(poll=0.01)
        if _accepted(engine) - before != sends:
            raise RuntimeError(f"only {_accepted(engine) - before} of {sends} were accepted")
        gateway_cpu = rig.cpu_of(Process(job["gateway"])) - gateway_before
    return {"sample": Sample(sends, meter.cpu, gateway_cpu, meter.wall), "accepting": accepted_after}


async def _accept(job: Mapping[str, Any]) -> dict[str, Any]:
    """Acceptance alone: another process would deliver."""
    async with _open(job, role="submit") as engine:
        found = {}
        for callers in (1, _CALLERS):
            sends = job["sends"] if callers > 1 else max(1, job["sends"] // 20)
            with Meter() as meter:
                await _send(engine, sends, job["devices"], callers)
            found[callers] = Sample(sends, meter.cpu, 0.0, meter.wall)
    with Meter() as meter:
        sends = max(1, job["sends"] // 20)
        _commit(Path(f"{job['database']}.bare"), sends)
    bare = Sample(sends, meter.cpu, 0.0, meter.wall)
    return {_BARE: bare} | {f"acceptance alone, {callers} callers": sample for callers, sample in found.items()}


def _commit(database: Path, commits: int) -> None:
    """Commits by SQLite alone, each of as many pages as the acceptance of one notification changes: the disk's part of
    it, which no engine can go below."""
    with closing(sqlite3.connect(database, isolation_level=None)) as bare:
        bare.execute("PRAGMA journal_mode = WAL")
        bare.execute("PRAGMA synchronous = FULL")
        for page in range(_PAGES):
            bare.execute(f"CREATE TABLE page{page} (content)")
        for _ in range(commits):
            bare.execute("BEGIN IMMEDIATE")
            for page in range(_PAGES):
                bare.execute(f"INSERT INTO page{page} VALUES (zeroblob(100))")
            bare.execute("COMMIT")


async def _cold(job: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a process does before its first push is accepted."""
    async with _open(job) as engine:
        status = await (await engine.send(NOTE, "user:u0")).wait(60)
        if status.counts["accepted"] != 1:
            raise RuntimeError(f"not accepted: {dict(status.counts)}")
        return {"at": time.time(), "cpu": time.process_time()}


async def _outage(job: Mapping[str, Any]) -> dict[str, Any]:
    """A broadcast whose gateway goes away in the middle and comes back: the parent says so, over a pipe."""
    async with _open(job) as engine:
        receipt = await engine.send(NOTE, "all")
        while (await receipt.status()).counts["accepted"] < job["devices"] // 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        print("stop", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        rows, cpu, begun = await _rows_written(engine), time.process_time(), time.perf_counter()
        await asyncio.sleep(job["seconds"])
        rows, cpu, wall = await _rows_written(engine) - rows, time.process_time() - cpu, time.perf_counter() - begun
        before = (await receipt.status()).counts["accepted"]
        print("start", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun = time.perf_counter()
        first = 0.0
        while (status := await receipt.status()).finished_at is None:
            if not first and status.counts["accepted"] > before:
                first = time.perf_counter() - begun
            await asyncio.sleep(0.02)
        return {
            "waiting": job["devices"] - before,
            "rows": rows,
            "busy": cpu / wall,
            "first": first or time.perf_counter() - begun,
            "all": time.perf_counter() - begun,
            "accepted": status.counts["accepted"],
            "memory": rig.peak_memory(),
        }


_TASKS = {
    "broadcast": _broadcast,
    "singles": _singles,
    "accept": _accept,
    "cold": _cold,
    "outage": _outage,
}


# -- the rows


def _ask(task: str, job: Mapping[str, Any]) -> Any:
    return child(_MODULE, "--task", task, json.dumps(job))


def _large(job: dict[str, Any]) -> list[Row]:
    devices = job["devices"]
    found = _ask("broadcast", job)
    sample = Sample(*found["sample"])
    about = {"cores": rig.cores(), "gateway_cpu": sample.gateway_cost}
    name = f"broadcast to {devices:,}"
    note = f"{sample.rate:,.0f}/s; CPU {sample.cpu:.1f} s"
    return [
        Row(f"{name}: until all are settled", sample.wall, "s", note=note, client_cpu=sample.cost, **about),
        Row(f"{name}: peak memory", found["memory"], "MB", note=f"before it {found['idle']:.0f} MB"),
        Row(f"{name}: rows written, per 1,000 deliveries", found["rows"] / devices * 1000, "rows"),
        Row(f"{name}: bytes on loopback per delivery", found["bytes"] / devices, "bytes"),
    ]


def _single_rows(job: dict[str, Any]) -> list[Row]:
    found = _ask("singles", job)
    rows = [
        rig.row(
            "single users, from send to settled",
            [Sample(*found["sample"])],
            cores=rig.cores(),
            note=f"{_CALLERS} callers; accepted at {job['sends'] / found['accepting']:,.0f}/s",
            figure="notifications a second",
        )
    ]
    accepted = _ask("accept", job)
    for name, sample in accepted.items():
        figure = "commits a second" if name == _BARE else "notifications a second"
        rows.append(rig.row(name, [Sample(*sample)], cores=f"CPU {rig.CLIENT_CPU} alone", figure=figure))
    return rows


def _outage_rows(job: dict[str, Any], folder: Path, port: int, seconds: float) -> list[Row]:
    """The gateway is ended and started again under a process that delivers."""
    command = ["taskset", "-c", str(rig.CLIENT_CPU), sys.executable, "-m", _MODULE, "--task", "outage"]
    with ExitStack() as stack:
        running = stack.enter_context(ExitStack())
        running.enter_context(gateway(nginx(folder, port), port))
        with subprocess.Popen(
            [*command, json.dumps(job | {"seconds": seconds})], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            for line in worker.stdout:
                if line.startswith("{"):
                    found = json.loads(line)
                    break
                if line.strip() == "stop":
                    running.close()
                elif line.strip() == "start":
                    stack.enter_context(gateway(nginx(folder, port), port))
                worker.stdin.write("done\n")
                worker.stdin.flush()
            else:
                raise RuntimeError("The process that delivers ended before the outage was over.")
    if found["accepted"] != job["devices"]:
        raise RuntimeError(f"only {found['accepted']} of {job['devices']} were accepted after the outage")
    name = f"outage of {seconds:g} s, {found['waiting']:,} waiting"
    return [
        Row(f"{name}: CPU meanwhile", found["busy"] * 100, "% of a core", cores=rig.cores()),
        Row(f"{name}: rows written meanwhile", found["rows"], "rows", note=f"peak memory {found['memory']:.0f} MB"),
        Row(f"{name}: from its end to the first accepted", found["first"], "s"),
        Row(f"{name}: from its end until all are settled", found["all"], "s"),
    ]


def _cold_row(job: dict[str, Any], starts: int) -> Row:
    took, cpu = [], []
    for _ in range(starts):
        begun = time.time()
        found = _ask("cold", job)
        took.append(found["at"] - begun)
        cpu.append(found["cpu"])
    note = f"worst of {starts}: {max(took) * 1000:.0f} ms; CPU {statistics.median(cpu) * 1000:.0f} ms"
    return Row(
        "cold start: python to the first push settled",
        statistics.median(took) * 1000,
        "ms",
        note=note,
        cores=rig.cores(),
    )


async def _mixed(folder: Path, settings: dict[str, Any], gateways: list[Any], devices: int) -> Sample:
    from fanout.cli.gateways import simulated_transports
    from fanout.registry import Registry

    addresses = {each.name: each.address for each in simulated_transports(Registry())}
    async with fanout.open(storage=f"sqlite:{folder}/mixed.db", transports=settings) as engine:
        for name in settings:
            each = devices // len(settings)
            await enter(engine, name, (addresses[name](number, "good") for number in range(each)))
        await broadcast(engine, None, NOTE)
        before = sum(map(rig.cpu_of, gateways))
        sample = await broadcast(engine, None, NOTE)
        return sample._replace(gateway_cpu=sum(map(rig.cpu_of, gateways)) - before)


def _mixed_row(folder: Path, devices: int) -> Row:
    names = ("apns", "fcm", "webpush", "wns")
    settings, gateways = {}, []
    with ExitStack() as stack:
        for name in names:
            (folder / name).mkdir()
            process, settings[name] = stack.enter_context(rig.simulator(folder / name, name))
            gateways.append(process)
        stack.enter_context(on_client_cpu(dedicated=True))
        sample = rig.run_async(_mixed(folder, settings, gateways, devices))
    return rig.row(
        f"one broadcast over {', '.join(names)}",
        [sample],
        cores=rig.cores(server=f"{len(names)} simulators together"),
        note="a quarter of the devices each",
    )


def run(
    *, devices: int = 1_000_000, sends: int = 50_000, outage: float = 10.0, outage_devices: int = 200_000,
    starts: int = 7, mixed: int = 40_000,
) -> list[Row]:  # fmt: skip
    """Every task, as rows. `mixed`: devices of the broadcast over all transports; 0 leaves that out."""
    absent = missing("nginx", "taskset")
    if absent:
        return [Row(absent, 0.0, "")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as name:
        folder = Path(name)
        rig.make_certificate(folder)
        port = rig.free_port()
        transports = {"apns": rig.apns_settings(f"https://127.0.0.1:{port}", folder)}

        def job(database: str, count: int, **more: Any) -> dict[str, Any]:
            made = {"database": str(folder / database), "transports": transports, "devices": count, **more}
            asyncio.run(_prepare(made))
            return made

        large, small = job("large.db", devices), job("small.db", 1000, sends=sends)
        interrupted = job("outage.db", outage_devices)
        with gateway(nginx(folder, port), port) as process:
            rows += _large(large | {"gateway": process.pid})
            rows += _single_rows(small | {"gateway": process.pid})
            rows.append(_cold_row(job("cold.db", 10), starts))
        rows += _outage_rows(interrupted, folder, port, outage)
        if mixed:
            rows.append(_mixed_row(folder, mixed))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--sends", type=int, default=50_000)
    parser.add_argument("--outage", type=float, default=10.0)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--task", nargs=2, metavar=("TASK", "JOB"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        task, job = chosen.task
        if task != "cold":
            bootstrap.dedicate_process()  # as `fanout work` does
        with asyncio.Runner(loop_factory=bootstrap.loop_factory()) as runner:
            print(json.dumps(runner.run(_TASKS[task](json.loads(job)))))
        return
    for row in run(devices=chosen.devices, sends=chosen.sends, outage=chosen.outage, starts=chosen.starts):
        print(row)


if __name__ == "__main__":
    main()
