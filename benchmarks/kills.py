"""kill -9 at random times, and an audit of the damage: nothing lost, nothing falsely reported, duplicates within the
bound.

    python -m benchmarks.kills [--kills N] [--seed N]

Four parties, as in any honest trial: `fanout work` in a process of its own, which is killed; a strict APNs simulator,
which writes each push into a ledger as it answers, half of them late; a driver, which notes the id of each notification
that was accepted; and an auditor, which in the end joins the three. Each cycle submits notifications, starts a worker,
and kills it after a random time; the last worker runs until nothing is left. Every other kill comes with the first
results that are stored: a result that was booked before its answer is false then. Anything lost or false, or more
duplicates than the bound, ends the benchmark with an error.

    lost           accepted by `send`, but without a final state after the last drain
    false          reported as accepted, but not in the ledger
    duplicates     ledger records beyond the first, per delivery
    bound          in flight + rate x checkpoint, per killed worker
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import apsw

import fanout
from benchmarks.row import Row
from fanout.cli.gateways import Gateway, toml
from fanout.core.policy import Policy
from fanout_kit.faulty.audit import Audit, audit

__all__ = ["run", "trial"]

_DEVICES = 50
_POLICY = {"lease": 1.0, "backoff_base": 0.05}
"""A short lease, so that the next worker need not wait long for a killed worker's chunks."""
_IN_FLIGHT = 1000
"""Two connections of 500 streams: the APNs binding's defaults."""


@asynccontextmanager
async def worker(config: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`fanout work` as a process of its own; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fanout", "work", *words, "--config", str(config),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def trial(
    folder: Path, *, kills: int, rng: random.Random, notifications: int = 100, longest: float = 2.0
) -> Audit:
    """One trial of `kills` kills over one database."""
    ledger = folder / "ledger"
    accepted: list[str] = []
    lines: list[int] = []
    late = json.dumps({"delay": 0.5, "delay_seconds": 0.5, "decide_late": True})
    async with Gateway("apns", folder / "gateway", "--ledger", str(ledger), "--faults", late) as gateway:
        config = folder / "fanout.toml"
        config.write_text(toml(f"sqlite:{folder}/fanout.db", {"apns": gateway.settings}, _POLICY))
        async with fanout.open(config, role="submit") as engine:
            for device in range(_DEVICES):
                await engine.endpoints.register(user=f"u{device % 10}", binding="apns", address=f"{device + 1:064x}")
            for number in range(kills):
                batch = [
                    (fanout.Notification(title=f"n{n}"), "all" if n % 2 else f"user:u{n % 10}")
                    for n in range(notifications)
                ]
                accepted += [receipt.id for receipt in await engine.send_many(batch)]
                settled = _settled(folder)
                async with worker(config) as process:
                    # Python takes a good part of a second to start: a kill before it has sent anything proves nothing.
                    before = lines[-1] if lines else 0
                    await _until(lambda before=before: _records(ledger) > before, process)
                    if number % 2:
                        await asyncio.sleep(rng.uniform(0.0, longest) ** 2 / longest)
                    else:
                        await _until(lambda settled=settled: _settled(folder) > settled + 100, process)
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
                lines.append(_records(ledger))
            async with worker(config, "--drain") as process:
                await process.wait()
                if process.returncode != 0:
                    raise RuntimeError(f"the last worker ended with {process.returncode}")
            return await audit(engine, accepted, ledger, edges=lines)


async def _until(true: Callable[[], bool], process: asyncio.subprocess.Process) -> None:
    for _ in range(6000):
        if true() or process.returncode is not None:
            return
        await asyncio.sleep(0.005)
    raise RuntimeError("the worker sent or stored nothing for 30 s")


def _settled(folder: Path) -> int:
    with closing(apsw.Connection(str(folder / "fanout.db"))) as connection:
        return int(connection.execute("SELECT coalesce(sum(settled), 0) FROM notification").get)


def _records(ledger: Path) -> int:
    return ledger.stat().st_size // 56 if ledger.exists() else 0


def run(*, kills: int = 50, seed: int = 1) -> list[Row]:
    """The trial, as rows."""
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(trial(Path(name), kills=kills, rng=random.Random(seed)))
    rate = statistics.median(found.rates) if found.rates else 0.0
    bound = found.bound(_IN_FLIGHT, Policy().checkpoint)
    if found.lost or found.false or found.worst > bound:
        raise RuntimeError(f"not what is promised: {found}; worst kill {found.worst:,}, bound {bound:,.0f}")
    return [
        Row(
            f"lost, {kills} kills of {found.deliveries:,} deliveries",
            found.lost,
            "deliveries",
            note=json.dumps(found.states),
        ),
        Row("falsely reported accepted", found.false, "deliveries"),
        Row("duplicates in all", found.duplicates, "deliveries"),
        Row(
            "duplicates, worst kill",
            found.worst,
            "deliveries",
            note=f"bound {bound:,.0f}; {rate:,.0f}/s in the median cycle",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, pid {os.getpid()}")
    for row in run(kills=arguments.kills, seed=arguments.seed):
        print(row)


if __name__ == "__main__":
    main()
