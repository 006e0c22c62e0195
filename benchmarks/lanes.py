"""How long an urgent delivery waits behind a million bulk ones, and a quiet app behind one that floods.

    python -m benchmarks.lanes [--bulk N] [--sends N] [--apps N] [--rounds N] [--seconds N]

1. Urgent: while a `bulk` broadcast runs through one APNs binding to nginx, a notification of lane `urgent` goes to one
   user, again and again, at random moments. Seconds from the call of `send` (before the durable commit) to the gateway.
2. Fairness: many apps with an APNs binding each. All but one send to one user at random, together about a hundred times
   a second. In turns for some seconds each, the last app's broadcast is held, and runs; the quiet ones' p99 may double
   at most.

The arrival is nginx's own: its log has the time, to the millisecond, and the `apns-id` of each request. The client has
CPU 0, nginx CPU 1.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import fanout
from benchmarks import rig
from benchmarks.rig import enter, gateway, nginx, on_client_cpu
from benchmarks.row import Row
from fanout.core.ids import delivery_id
from fanout.engine import Engine

__all__ = ["run"]


@asynccontextmanager
async def apns_apps(storage: str, url: str, folder: Path, apps: Sequence[str]) -> AsyncIterator[Engine]:
    """An engine with an APNs binding in each of these apps."""
    binding = rig.apns_settings(url, folder)
    async with fanout.open(storage=storage, apps={app: {"apns": binding} for app in apps}) as engine:
        yield engine


class Gateway:
    """nginx's log of arrivals, read behind it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "arrivals.log"
        self._seen: dict[str, float] = {}

    def arrivals(self, wanted: Mapping[str, float]) -> list[float]:
        """Seconds from each wanted delivery's moment (UNIX seconds, by its id) to its arrival."""
        with self._path.open() as log:
            for line in log:
                moment, _, id = line.rstrip().partition(" ")
                if id in wanted:
                    self._seen[id] = float(moment)
        return [self._seen[id] - begun for id, begun in wanted.items()]


async def sent(engine: Engine, notification: fanout.Notification, user: str, app: str) -> tuple[str, float]:
    """Send to one user, and wait until it is accepted: the delivery's id, and when `send` was called (UNIX seconds)."""
    begun = time.time()
    return await arrived(engine, await engine.send(notification, f"user:{user}", app=app)), begun


async def arrived(engine: Engine, receipt: fanout.Receipt) -> str:
    """The id of the only delivery of this notification, once it is accepted."""
    status = await receipt.wait(60)
    if status.counts["accepted"] != 1:
        raise RuntimeError(f"not accepted: {dict(status.counts)}")
    (endpoint,) = [row[0] async for row in engine.deliveries(receipt.id)]
    return delivery_id(receipt.id, endpoint)


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def urgent(engine: Engine, bulk: int, sends: int) -> tuple[dict[str, float], bool]:
    """Urgent sends beside a bulk broadcast; and whether it was still running at the last."""
    notification = fanout.Notification(title="Sale", body="Everything must go.", lane="bulk")
    broadcast = await engine.send(notification, "all")
    rng = random.Random(1)
    taken = {}
    for number in range(sends):
        await asyncio.sleep(rng.uniform(0.0, 0.04))
        alert = fanout.Notification(title="Your code", body=str(number), lane="urgent")
        id, begun = await sent(engine, alert, f"u{rng.randrange(bulk)}", "default")
        taken[id] = begun
    running = (await broadcast.status()).finished_at is None
    await broadcast.cancel()
    return taken, running


async def quiet(engine: Engine, apps: Sequence[str], seconds: float) -> list[tuple[fanout.Receipt, float]]:
    """The quiet apps' sends, each app about once a second, and when each was called. Their results are asked for
    afterwards."""
    rng = random.Random(2)
    taken: list[tuple[fanout.Receipt, float]] = []

    async def one(app: str) -> None:
        end = time.perf_counter() + seconds
        while True:
            await asyncio.sleep(rng.expovariate(1.0))
            if time.perf_counter() >= end:
                return
            begun = time.time()
            taken.append((await engine.send(fanout.Notification(title="Hi"), "user:u0", app=app), begun))

    await asyncio.gather(*(one(app) for app in apps))
    return taken


async def settled(engine: Engine, taken: Sequence[tuple[fanout.Receipt, float]]) -> dict[str, float]:
    """When each was called, by the id of its delivery."""
    return {await arrived(engine, receipt): begun for receipt, begun in taken}


def run(*, bulk: int = 1_000_000, sends: int = 200, apps: int = 99, rounds: int = 3, seconds: float = 5.0) -> list[Row]:
    """The two figures, as rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rig.make_certificate(folder)
        log = Gateway(folder)
        port = rig.free_port()
        url = f"https://127.0.0.1:{port}"

        async def first() -> tuple[dict[str, float], bool]:
            async with apns_apps(f"sqlite:{folder}/urgent.db", url, folder, ["default"]) as engine:
                await enter(engine, "apns", (f"{n + 1:064x}" for n in range(bulk)))
                await sent(engine, fanout.Notification(title="Warm up"), "u0", "default")
                return await urgent(engine, bulk, sends)

        async def second() -> tuple[list[dict[str, float]], list[dict[str, float]], bool]:
            names = [f"quiet-{number}" for number in range(apps)]
            alone, beside = [], []
            async with apns_apps(f"sqlite:{folder}/fair.db", url, folder, ["default", *names]) as engine:
                await enter(engine, "apns", (f"{n + 1:064x}" for n in range(bulk)))
                for app in names:
                    await engine.endpoints.register(user="u0", binding="apns", address="ab" * 32, app=app)
                    await sent(engine, fanout.Notification(title="Warm up"), "u0", app)
                flood = await engine.send(fanout.Notification(title="Flood", lane="urgent"), "all")
                for _ in range(rounds):
                    await engine.pause(flood.id)
                    alone.append(await settled(engine, await quiet(engine, names, seconds)))
                    await engine.resume(flood.id)
                    taken = await quiet(engine, names, seconds)
                    await engine.pause(flood.id)
                    beside.append(await settled(engine, taken))
                running = (await flood.status()).finished_at is None
                await flood.cancel()
                return alone, beside, running

        log_to = f"{folder}/arrivals.log arrival"
        with gateway(nginx(folder, port, access_log=log_to), port), on_client_cpu(dedicated=True):
            sends_, running = asyncio.run(first())
            alone_, beside_, flooding = asyncio.run(second())
        taken = log.arrivals(sends_)
        alone, beside = ([log.arrivals(each) for each in turns] for turns in (alone_, beside_))
    ratios = [quantile(loud, 0.99) / quantile(calm, 0.99) for calm, loud in zip(alone, beside, strict=True)]
    calm, loud = ([each for turn in turns for each in turn] for turns in (alone, beside))
    late = "" if running else "; the broadcast ended before the last"
    over = "" if flooding else "; the flood ended before the last"
    return [
        Row(
            "urgent beside bulk, send to gateway, p99",
            quantile(taken, 0.99) * 1e3,
            "ms",
            "",
            0.0,
            f"median {quantile(taken, 0.5) * 1e3:.0f} ms, worst of {len(taken)}: {max(taken) * 1e3:.0f} ms{late}",
            cores=rig.cores(),
        ),
        Row(
            f"{apps} quiet apps beside one that floods, p99",
            quantile(loud, 0.99) * 1e3,
            "ms",
            "their own alone",
            statistics.median(ratios),
            f"alone {quantile(calm, 0.99) * 1e3:.0f} ms; medians {quantile(loud, 0.5) * 1e3:.0f} and {quantile(calm, 0.5) * 1e3:.0f} ms{over}",
            spread=(min(ratios), max(ratios)),
            cores=rig.cores(),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulk", type=int, default=1_000_000)
    parser.add_argument("--sends", type=int, default=200)
    parser.add_argument("--apps", type=int, default=99)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    for row in run(**vars(arguments)):
        print(row)


if __name__ == "__main__":
    main()
