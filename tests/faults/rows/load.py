"""Rows 8, 9, 12, 13, 38 and 39: sustained load, a million in back-off, collapse keys, lanes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import closing
from typing import Any

import apsw

import fanout
from fanout.engine import Engine, EngineOptions
from fanout.plugin import StorageContext
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedTransport
from fanout.testing.simulator.ledger import read_ledger
from fanout_apns.simulator import ApnsSimulator
from fanout_kit.faulty.disk import Disk
from tests.faults.rows.measures import SystemClock, megabytes, percentile
from tests.faults.table import Finding, measured
from tests.faults.world import Form, World, until, world

__all__ = ["ROWS"]


async def _idle(here: World) -> bool:
    return not await here.engine.storage.outstanding()


@measured(8, "sustained load at 80 % of the most", "p99 flat, RSS slope < 1 MB in 10 minutes, 0 lost")
async def sustained(form: Form) -> Finding:
    """First as fast as it goes, to know the most; then four fifths of that, one notification to 100 devices at a
    time."""
    seconds = form.pick(2.0, 120.0)
    async with world(form, {"apns": {"lean": True}}, devices=100) as here:
        worker = here.work()
        ids = await here.submit(form.pick(50, 400))
        for id in ids:
            await here.engine.wait(id, 60)
        at = [entry.at for entry in read_ledger(here.gateway.ledger)]
        most = len(at) / (at[-1] - at[0])
        pause = 100 / (0.8 * most)
        sent: dict[str, float] = {}
        sizes: list[tuple[float, float]] = []
        began = time.monotonic()
        due = began
        while time.monotonic() - began < seconds:
            now = time.time()
            (id,) = await here.submit(1)
            sent[id] = now
            due += pause
            if len(sent) % 20 == 0:
                sizes.append((time.monotonic() - began, megabytes(worker.pid)))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        for id in sent:
            await here.engine.wait(id, 60)
        achieved = 100 * len(sent) / (time.monotonic() - began)
        last = {entry.notification: entry.at for entry in read_ledger(here.gateway.ledger)}
        audit = await here.audit()
    waits = [last[id] - at for id, at in sent.items()]
    third = len(waits) // 3
    early, late = percentile(waits[:third], 0.99), percentile(waits[-third:], 0.99)
    # The first third is the warming up of caches and of the allocator.
    slope = _slope([size for size in sizes if size[0] > seconds / 3]) * 600
    found = (
        f"{achieved:,.0f}/s of {most:,.0f}/s, submit to last push p99 {early * 1000:.0f} -> {late * 1000:.0f} ms, "
        f"RSS {slope:+.1f} MB in 10 minutes, lost {audit.lost}"
    )
    counts = audit.lost == audit.false == 0 and audit.duplicates == 0
    # In seconds a slope says nothing, so that it is of the verdict on time.
    in_time = late <= max(2 * early, early + 0.25) and slope < 1.0
    return Finding(found, counts, f"{seconds:g} s, {audit.deliveries:,} deliveries", time=in_time)


def _slope(points: list[tuple[float, float]]) -> float:
    """Least squares."""
    if len(points) < 2:
        return 0.0
    x = sum(point[0] for point in points) / len(points)
    y = sum(point[1] for point in points) / len(points)
    spread = sum((point[0] - x) ** 2 for point in points)
    return sum((point[0] - x) * (point[1] - y) for point in points) / spread if spread else 0.0


@measured(
    9, "submit rate with group commit, synchronous=FULL", "p99 < 50 ms; req/s, fsync/s and batch size are reported"
)
async def submitting(form: Form) -> Finding:
    """1, 10 and 100 clients that send one notification after the other."""
    seconds = form.pick(0.3, 5.0)
    form.folder.mkdir(exist_ok=True)
    details, worst, stored = [], 0.0, True
    disk = Disk("counting")
    try:
        for clients in (1, 10, 100):
            clock = SystemClock()
            engine = Engine(
                Registry().make_storage(f"sqlite:{form.folder}/{clients}.db", StorageContext(clock=clock)),
                {("default", "push"): ScriptedTransport(record=False)},
                EngineOptions(clock=clock, rng=form.rng, role="submit"),
            )
            waits: list[float] = []
            async with engine:
                await engine.endpoints.register(user="alice", binding="push", address="phone")
                syncs = disk.syncs
                end = time.monotonic() + seconds

                async def client(engine: Engine = engine, end: float = end, waits: list[float] = waits) -> None:
                    while (began := time.monotonic()) < end:
                        await engine.send(fanout.Notification(title="x"), "user:alice")
                        waits.append(time.monotonic() - began)

                await asyncio.gather(*(client() for _ in range(clients)))
                syncs = disk.syncs - syncs
            p99 = percentile(waits, 0.99)
            worst = max(worst, p99)
            # A commit of its own for each client's send at most, and one for all that wait at least.
            stored &= 0 < syncs <= 2 * len(waits)
            details.append(
                f"{clients} clients {len(waits) / seconds:,.0f}/s, {syncs / seconds:,.0f} fsync/s, "
                f"{len(waits) / max(1, syncs):.1f} a commit, p99 {p99 * 1000:.1f} ms"
            )
    finally:
        disk.unregister()
    return Finding("; ".join(details), stored, f"{seconds:g} s each", time=worst < 0.05)


@measured(
    12,
    "everything in back-off: the gateway answers 503",
    "RSS grows < 64 MB over idle, about one row per 1,000, clean drain",
)
async def outage_of_many(form: Form) -> Finding:
    """A broadcast meets a gateway that refuses everything; memory and rows are measured while it waits; then it comes
    back."""
    devices = form.pick(3_000, 1_000_000)
    async with world(form, policy={"backoff_base": 1.0, "backoff_cap": 5.0, "lease": 5.0}) as here:
        worker = here.work()
        await here.register(100, users=1)
        for id in await here.submit(1):
            await here.engine.wait(id, 30)
        idle = megabytes(worker.pid)
        began = time.monotonic()
        await here.register(devices, users=1, first=100)
        registered = time.monotonic() - began
        await here.gateway.strain(share=1.0)
        (id,) = await here.submit(1)
        peak = idle
        end = time.monotonic() + form.pick(1.5, 20.0)
        while time.monotonic() < end:
            peak = max(peak, megabytes(worker.pid))
            await asyncio.sleep(0.05)
        with closing(apsw.Connection(str(here.database))) as connection:
            chunks, retries = connection.execute(
                "SELECT (SELECT count(*) FROM chunk), (SELECT count(*) FROM retry)"
            ).get
        attempts = (await here.engine.status(id)).attempts
        await here.gateway.strain(share=0.0)
        began = time.monotonic()
        status = await here.engine.wait(id, 600)
        drained = time.monotonic() - began
        peak = max(peak, megabytes(worker.pid))
        worker.kill()
        await worker.wait()
    found = (
        f"RSS {peak - idle:+.0f} MB over {idle:.0f} MB idle, {chunks:,} chunks and {retries} retry rows, {attempts} attempts while it lasted, "
        f"accepted {status.counts['accepted']:,} after {drained:.0f} s"
    )
    good = peak - idle < 64 and retries + chunks < 200 + devices / 250 and status.counts["accepted"] == devices + 100
    return Finding(found, good, f"{devices:,} devices, registered in {registered:.0f} s")


@measured(13, "individual retries: each device told its own time", "RSS < 150 MB, due-time error p99 < 1 s")
async def many_retries(form: Form) -> Finding:
    """Every device answers 429 once with a Retry-After of its own, and is then served."""
    devices, longest = form.pick(200, 20_000), form.pick(2, 12)
    rng = form.rng
    async with world(form, policy={"retry_after_cap": 60.0, "retry_burst": 1e6}) as here:
        await here.register(devices, users=1)
        told = {ApnsSimulator.address(n): str(rng.randint(1, longest)) for n in range(devices)}
        await here.gateway.strain(tell_once=told, told=[], error="TooManyRequests", exact=True)
        worker = here.work()
        (id,) = await here.submit(1)
        peak = 0.0
        waiting = asyncio.create_task(here.engine.wait(id, 300))
        while not waiting.done():
            peak = max(peak, megabytes(worker.pid))
            await asyncio.sleep(0.05)
        status = await waiting
        when = dict((await here.gateway.tell(get=["told"]))["told"])
        worker.kill()
        await worker.wait()
        transport = here.engine.transports["default", "apns"]
        digest = {transport.parse_address(address).digest: address for address in told}
        errors, early = [], 0
        for entry in read_ledger(here.gateway.ledger):
            address = digest[entry.address]
            told_s = float(told[address])
            late = entry.at - when[address] - told_s
            early += late < -0.01
            # The policy's own jitter: a tenth of what was told, and one base.
            errors.append(late - 0.1 * told_s - here.policy["backoff_base"])
    p99 = percentile(errors, 0.99)
    found = f"RSS {peak:.0f} MB, later than due (jitter taken off) p99 {max(0.0, p99):.2f} s, early {early}, accepted {status.counts['accepted']:,}"
    counts = peak < 150 and early == 0 and status.counts["accepted"] == devices
    return Finding(found, counts, f"{devices:,} devices told 1 to {longest} s", time=p99 < 1.0)


@measured(38, "collapse", "the gateway sees the last; never an older one after a newer one, per device")
async def collapse(form: Form) -> Finding:
    """100 updates of a score while nobody works, and 100 more while somebody does, to one user and over different
    targets."""
    keys, updates = form.pick(2, 20), form.pick(20, 100)
    stale = wrong = seen_offline = 0
    async with world(form, devices=40) as here:
        targets = ["user:u1", "topic:news", "all"]
        order: dict[str, tuple[int, int]] = {}
        last: dict[int, str] = {}

        async def update(key: int, number: int) -> None:
            target = targets[number % 3] if key % 2 else "user:u1"
            (id,) = await here.submit(1, target, collapse_key=f"match-{key}", title=str(number))
            order[id] = (key, number)
            if target == "user:u1" or key % 2:
                last[key] = id

        for key in range(keys):
            for number in range(updates):
                await update(key, number)
        offline = dict(last)
        worker = here.work()
        await until(lambda: _idle(here), 60, "the end of the backlog")
        first = [entry for entry in read_ledger(here.gateway.ledger) if entry.notification in order]
        # What went out although a later one for the same device had been accepted before the worker started.
        newest: dict[tuple[int, str], int] = {}
        for entry in first:
            key, number = order[entry.notification]
            newest[key, entry.address] = max(newest.get((key, entry.address), -1), number)
        seen_offline = len(first) - len(newest)
        for id in offline.values():
            wrong += not any(entry.notification == id for entry in first)
        await here.gateway.faults(delay=1.0, delay_seconds=0.02)
        for number in range(updates, 2 * updates):
            for key in range(keys):
                await update(key, number)
            await asyncio.sleep(0.005)
        await until(lambda: _idle(here), 60, "the end of the backlog")
        worker.kill()
        await worker.wait()
        high: dict[tuple[int, str], int] = defaultdict(lambda: -1)
        entries = list(read_ledger(here.gateway.ledger))
        for entry in entries:
            key, number = order[entry.notification]
            stale += number < high[key, entry.address]
            high[key, entry.address] = max(high[key, entry.address], number)
        for id in last.values():
            wrong += not any(entry.notification == id for entry in entries)
        audit = await here.audit()
    found = (
        f"older after newer {stale}, last one missing {wrong}, sent although replaced while nobody worked {seen_offline}, "
        f"lost {audit.lost}, {dict(audit.states)}"
    )
    good = stale == wrong == seen_offline == audit.lost == audit.false == 0 and audit.states["superseded"] > 0
    return Finding(found, good, f"{keys} keys, {2 * updates} updates each, half of the keys over different targets")


@measured(39, "lanes: urgent past a bulk backlog", "urgent submit -> gateway p99 < 100 ms; the backlog outlasts them")
async def lanes(form: Form) -> Finding:
    """Broadcasts in the lane bulk, one behind the other as long as it takes, and urgent notifications one by one
    meanwhile."""
    devices, count, ahead = form.pick(2_000, 100_000), form.pick(15, 150), form.pick(40, 6)
    async with world(form, {"apns": {"lean": True}}) as here:
        await here.register(devices, users=devices // 2)
        worker = here.work()
        bulk = await here.submit(ahead, lane="bulk")
        await until(lambda: here.gateway.arrived > 1000, 60, "the broadcast under way")
        sent: dict[str, float] = {}
        outlasted = 0
        for n in range(count):
            # Half of the broadcasts stay ahead of the worker, however fast it is.
            if (await here.engine.status(bulk[-ahead // 2])).counts["accepted"]:
                bulk += await here.submit(ahead // 2, lane="bulk")
            began = time.time()
            (id,) = await here.submit(1, f"user:u{n}", lane="urgent")
            await here.engine.wait(id, 60)
            sent[id] = began
            outlasted += (await here.engine.status(bulk[-1])).finished_at is None
            await asyncio.sleep(form.pick(0.0, 0.05))
        first: dict[str, float] = {}
        for entry in read_ledger(here.gateway.ledger):
            first.setdefault(entry.notification, entry.at)
        worker.kill()
        await worker.wait()
    waits = [first[id] - at for id, at in sent.items()]
    p50, p99 = percentile(waits, 0.5), percentile(waits, 0.99)
    found = f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, the backlog outlasted {outlasted} of {count}"
    scale = f"{devices * len(bulk):,} bulk, {count} urgent from another process"
    return Finding(found, outlasted == count, scale, time=p99 < 0.1)


ROWS: list[Any] = [sustained, submitting, outage_of_many, many_retries, collapse, lanes]
