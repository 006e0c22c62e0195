"""How cost grows: CPU per delivery and memory against endpoints, notifications in flight, Web Push hosts and apps.

    python -m benchmarks.growth [--endpoints N] [--deliveries N] [--notifications N] [--hosts N] [--apps N]

Each size runs in a process of its own, over an SQLite file that another has filled, with a transport that accepts at
once:  growth is the engine's and storage's. The row of Web Push hosts is the real transport to nginx, with a connection
for each host. Where the cost of a delivery at the largest size is within 1.3 times the least, the line is straight;
where it is not, `README.md` says why. Notifications in flight, and apps, have 200 endpoints each, at any
number; small sizes are repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fanout
from benchmarks import rig
from benchmarks.engine import Instant
from benchmarks.rig import Meter, Process, broadcast, child, enter, gateway, missing, nginx, on_client_cpu
from benchmarks.row import Row
from fanout import bootstrap
from fanout.core.policy import Policy, Retention
from fanout.engine import Engine, EngineOptions
from fanout.plugin import Address, StorageContext
from fanout.registry import Registry

__all__ = ["Hosts", "run", "straight"]

STRAIGHT = 1.3
"""Times the least cost of a delivery, up to which the last point counts as lying on a line."""
_EACH = 200
"""Endpoints of one notification in flight, and of one app: the cost of a notification is shared by as many in every
size."""
_CONNECTION = 0.6
"""MB of a TLS connection at most, both ends: asyncio keeps a buffer of 256 KB for each."""
NOTE = fanout.Notification(title=rig.TITLE, body=rig.BODY)
_MODULE = "benchmarks.growth"


class Hosts(Instant):
    """Addresses are `host/device`; a host is a group."""

    def parse_address(self, raw: Any) -> Address:
        host, _, _ = str(raw).partition("/")
        return Address(str(raw), group=host)


def decades(least: int, most: int) -> list[int]:
    """1, 10, 100 … from `least`, and `most`."""
    sizes = []
    while least < most:
        sizes.append(least)
        least *= 10
    return [*sizes, most]


def straight(costs: Sequence[float]) -> bool:
    """Whether the cost of one, at growing sizes, has not grown: the last is within `STRAIGHT` times the least."""
    return costs[-1] <= STRAIGHT * min(costs)


# -- in the process of its own


def _engine(database: str, transports: Mapping[tuple[str, str], Any]) -> Engine:
    clock = bootstrap.SystemClock()
    storage = Registry().make_storage(f"sqlite:{database}", StorageContext(clock=clock, retention=Retention()))
    return Engine(storage, transports, EngineOptions(clock=clock, rng=random.Random(), policy=Policy()))


async def _fill(job: dict[str, Any]) -> None:
    """Enter the devices, of as many apps and hosts."""
    apps = [f"app{n}" for n in range(job["apps"])] if job["apps"] > 1 else ["default"]
    async with _engine(job["database"], {(app, "apns"): Hosts() for app in apps}) as engine:
        for app in apps:
            each = job["endpoints"] // len(apps)
            await enter(engine, "apns", (f"h{n % job['hosts']}/{n:060x}" for n in range(each)), app=app)


async def _deliver(job: dict[str, Any]) -> dict[str, float]:
    """So many notifications at once, again and again until the number of deliveries is reached."""
    apps = [f"app{n}" for n in range(job["apps"])] if job["apps"] > 1 else ["default"]
    async with _engine(job["database"], {(app, "apns"): Hosts() for app in apps}) as engine:
        idle = rig.peak_memory()

        async def once() -> int:
            receipts = [await engine.send(NOTE, "all", app=app) for app in apps for _ in range(job["notifications"])]
            statuses = await asyncio.gather(*(receipt.wait(3600) for receipt in receipts))
            accepted = sum(status.counts["accepted"] for status in statuses)
            if accepted != sum(status.total or 0 for status in statuses):
                raise RuntimeError("not all were accepted")
            return accepted

        await once()  # statements and caches are warm in any process that has lived for a second
        done = 0
        with Meter() as meter:
            while done < job["deliveries"]:
                done += await once()
    return {"done": done, "cpu": meter.cpu, "wall": meter.wall, "memory": rig.peak_memory() - idle}


async def _web_push(job: dict[str, Any]) -> dict[str, float]:
    """The real transport, and a connection to nginx for each host."""
    settings = job["settings"] | {"max_hosts": min(10_000, max(64, job["hosts"])), "connections": 1}
    async with fanout.open(storage=f"sqlite:{job['database']}", transports={"webpush": settings}) as engine:
        await enter(engine, "webpush", job["browsers"])
        idle = rig.peak_memory()
        sample = await broadcast(engine, Process(job["gateway"]), NOTE)
    return {"done": sample.requests, "cpu": sample.cpu, "wall": sample.wall, "memory": rig.peak_memory() - idle,
            "gateway": sample.gateway_cpu}  # fmt: skip


# -- the lines


def _line(name: str, unit: str, found: Mapping[int, dict[str, float]], where: str) -> list[Row]:
    """A row for each size: the CPU of one delivery, with the rate and the memory beside it."""
    costs = {size: each["cpu"] / each["done"] * 1e6 for size, each in found.items()}
    worst = list(costs.values())[-1] / min(costs.values())
    verdict = f"{'straight' if straight(list(costs.values())) else 'NOT straight'}: {worst:.2f} times the least"
    rows = []
    for size, each in found.items():
        note = f"{each['done'] / each['wall']:,.0f}/s; {each['memory']:+.0f} MB"
        if size == max(found):
            note += f"; {verdict}"
        gateway_cpu = each.get("gateway", 0.0) / each["done"] * 1e6
        rows.append(
            Row(
                f"{name}: {size:,} {unit}",
                costs[size],
                "us of CPU per delivery",
                note=note,
                gateway_cpu=gateway_cpu,
                cores=where,
                figure=f"cost of a delivery against {name}",
                series=name,
                x=float(size),
            )
        )
        rows.append(
            Row(
                f"{name}: {size:,} {unit}, memory",
                each["memory"],
                "MB",
                cores=where,
                figure=f"memory against {name}",
                series=name,
                x=float(size),
            )
        )
    return rows


def _measure(folder: Path, name: str, rounds: int, **job: Any) -> dict[str, float]:
    """Fill a database, and deliver from it in processes of their own; the run of median CPU."""
    whole = {"apps": 1, "hosts": 1, "notifications": 1} | job
    whole["database"] = str(folder / f"{name}.db")
    asyncio.run(_fill(whole))
    runs = [child(_MODULE, "--deliver", json.dumps(whole)) for _ in range(rounds)]
    for file in folder.glob(f"{name}.db*"):
        file.unlink()
    middle = sorted(runs, key=lambda run: run["cpu"] / run["done"])[len(runs) // 2]
    middle["memory"] = statistics.median(run["memory"] for run in runs)
    return middle


def _web_push_hosts(folder: Path, sizes: Sequence[int], browsers: int) -> list[Row]:
    from fanout_webpush.browsers import Browser
    from fanout_webpush.vapid import make_vapid_keys

    absent = missing("nginx")
    if absent:
        return [Row(absent, 0.0, "")]
    sizes, left_out = _affordable(sizes)
    rig.make_certificate(folder)
    port = rig.free_port()
    pair = make_vapid_keys()
    url = f"https://127.0.0.1:{port}"
    settings = {
        "vapid_private_key": pair.private_pem.reveal(), "vapid_subject": "mailto:ops@example.com", "gateway": url,
        "ca_file": str(folder / "cert.pem"), "allow_public_hosts": True,
    }  # fmt: skip
    one = Browser("https://push.example.com/x", pair.application_server_key).subscription()
    found = {}
    with gateway(nginx(folder, port, answer=rig.CREATED, connections=16_384), port) as process, on_client_cpu():
        for size in sizes:
            subscribed = [{**one, "endpoint": f"https://h{n % size}.push.example.com/{n}"} for n in range(browsers)]
            job = {"database": str(folder / f"web{size}.db"), "hosts": size, "settings": settings,
                   "browsers": subscribed, "gateway": process.pid}  # fmt: skip
            file = folder / "job.json"
            file.write_text(json.dumps(job))
            found[size] = child(_MODULE, "--web-push", str(file))
    return _line("Web Push hosts over TLS", "hosts", found, rig.cores()) + left_out


def _affordable(sizes: Sequence[int]) -> tuple[list[int], list[Row]]:
    """The numbers of connections for which there is memory, and rows that name the others."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return list(sizes), []
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1024
    wanting = [size for size in sizes if size * _CONNECTION > free]
    rows = [
        Row(f"skipped: {size:,} Web Push hosts need {size * _CONNECTION:,.0f} MB of free memory", 0.0, "")
        for size in wanting
    ]
    return [size for size in sizes if size not in wanting], rows


def run(
    *,
    endpoints: int = 1_000_000,
    deliveries: int = 100_000,
    notifications: int = 1000,
    hosts: int = 10_000,
    real_hosts: int = 10_000,
    apps: int = 500,
    rounds: int = 3,
) -> list[Row]:
    """All four lines. `real_hosts`: how many of Web Push are connected to; 0 leaves that out."""
    alone = f"CPU {rig.CLIENT_CPU} alone"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as name:
        folder = Path(name)

        def line(title: str, unit: str, sizes: Sequence[int], job: Any) -> None:
            found = {size: _measure(folder, f"x{size}", rounds, **job(size)) for size in sizes}
            rows.extend(_line(title, unit, found, alone))

        def size_of_directory(size: int) -> dict[str, int]:
            return {"endpoints": size, "deliveries": max(size, deliveries)}

        def in_flight(size: int) -> dict[str, int]:
            return {"endpoints": _EACH, "notifications": size, "deliveries": max(size * _EACH, deliveries // 10)}

        def number_of_hosts(size: int) -> dict[str, int]:
            return {"endpoints": deliveries, "hosts": size, "deliveries": deliveries}

        def number_of_apps(size: int) -> dict[str, int]:
            return {"endpoints": size * _EACH, "apps": size, "deliveries": max(size * _EACH, deliveries // 10)}

        line("endpoints", "endpoints", decades(1000, endpoints), size_of_directory)
        line("notifications in flight", "at once", decades(1, notifications), in_flight)
        line("hosts, engine alone", "hosts", decades(1, hosts), number_of_hosts)
        line("apps", "apps", decades(1, apps), number_of_apps)
        if real_hosts:
            rows += _web_push_hosts(folder, decades(1, real_hosts), max(10_000, real_hosts))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=1_000_000)
    parser.add_argument("--deliveries", type=int, default=100_000)
    parser.add_argument("--notifications", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--apps", type=int, default=500)
    for flag in ("--deliver", "--web-push"):
        parser.add_argument(flag, metavar="JOB", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.deliver or chosen.web_push:
        bootstrap.dedicate_process()
        if chosen.deliver:
            made = asyncio.run(_deliver(json.loads(chosen.deliver)))
        else:
            made = asyncio.run(_web_push(json.loads(Path(chosen.web_push).read_text())))
        print(json.dumps(made))
        return
    sizes = {"endpoints": chosen.endpoints, "deliveries": chosen.deliveries, "notifications": chosen.notifications}
    for row in run(**sizes, hosts=chosen.hosts, real_hosts=chosen.hosts, apps=chosen.apps):
        print(row)


if __name__ == "__main__":
    main()
