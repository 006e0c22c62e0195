"""Rows 46, 47 and 48, and what PostgreSQL adds to rows 1 and 6: four workers on one database, killed, stopped, cut off
and let down."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from statistics import quantiles
from typing import Any

import asyncpg

from fanout.core.model import Target
from fanout.core.records import Settlement
from fanout.errors import StorageUnavailable
from fanout.plugin import StorageContext
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, submission
from fanout_kit.faulty.audit import Audit
from fanout_kit.postgres import MISSING, PostgresServer, find_programs
from tests.faults.endings import told_to_end
from tests.faults.nursery import Child
from tests.faults.rows.kills import CHECKPOINT, IN_FLIGHT, honest, words
from tests.faults.table import Finding, NotRun, measured
from tests.faults.world import Form, World, moment, until, world

__all__ = ["ROWS", "four_workers_killed", "four_workers_stopped"]

WORKERS = 4
_UNFLUSHED = 0.6
"""Seconds of settlements that a failing server may forget: three times `wal_writer_delay` (PostgreSQL, 30.4),
asynchronously committed."""


@asynccontextmanager
async def server(form: Form) -> AsyncIterator[PostgresServer]:
    """A server of the row's own. Raises `NotRun` where there is no PostgreSQL."""
    if find_programs() is None:
        raise NotRun(MISSING)
    made = await asyncio.to_thread(PostgresServer.start, fsync=form.long)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.close)


def _plan(rng: random.Random, count: int, key: str, *, keyed: bool = True) -> list[list[object]]:
    """Half to everybody, half to one user; no two alike. Without `keyed`, half have no idempotency key."""
    return [
        [
            "all" if n % 2 else f"user:u{rng.randrange(10)}",
            {"title": f"{key}-{n}", "lane": rng.choice(("urgent", "normal", "bulk"))},
            f"{key}-{n}" if keyed or n % 4 < 2 else None,
        ]
        for n in range(count)
    ]


def _rounds(
    rng: random.Random, count: int, key: str, size: int = 10, *, keyed: bool = True
) -> list[list[list[object]]]:
    plan = _plan(rng, count, key, keyed=keyed)
    return [plan[first : first + size] for first in range(0, count, size)]


async def _stored_twice(url: str) -> int:
    """Notifications that are there although one with the same content is there already."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "fanout"})
    try:
        return int(await connection.fetchval("SELECT count(*) - count(DISTINCT content) FROM notification"))
    finally:
        await connection.close()


async def quit_all(workers: list[Child]) -> int:
    """Tell them to end; how many did not end well. The trial's endings have their exit codes and last words."""
    return sum(not ending.clean for ending in await told_to_end(workers))


# -- kill -9 of any of four


async def four_workers_killed(form: Form) -> Finding:
    """Four workers share a database under load; one of them after another is killed, and a new one takes its place."""
    kills, count = form.pick(3, 100), form.pick(20, 60)
    rng = form.rng
    async with server(form) as database:
        url = database.url(database.fresh())
        async with world(form, devices=50, policy={"lease": 1.0}, storage=url) as here:
            workers = [here.work() for _ in range(WORKERS)]
            for cycle in range(kills):
                driver = here.drive(_rounds(rng, count, f"k{cycle}"))
                await here.pushed(here.gateway.arrived, *workers, driver)
                await asyncio.sleep(rng.uniform(0.0, 0.3))
                victim = workers.pop(rng.randrange(WORKERS))
                victim.kill()
                await victim.wait()
                here.edges.append(here.gateway.arrived)
                workers.append(here.work())
                if await driver.wait() != 0:
                    raise RuntimeError(f"a driver was refused: {driver.said[-500:]}")
            failed = await quit_all(workers)
            await here.drain()
            audit = await here.audit()
        twice = await _stored_twice(url)
    found = f"{words(audit)}, stored twice {twice}, workers that failed {failed}"
    return Finding(
        found,
        honest(audit) and twice == failed == 0,
        f"{kills} of {WORKERS} workers killed, {audit.deliveries:,} deliveries",
    )


async def four_workers_stopped(form: Form) -> Finding:
    """One of four is stopped past its lease with deliveries in hand, and goes on when others have taken them over."""
    stops, lease = form.pick(2, 20), 1.0
    rng = form.rng
    stale = 0
    async with server(form) as database:
        url = database.url(database.fresh())
        async with world(form, devices=200, policy={"lease": lease}, storage=url) as here:
            workers = [here.work() for _ in range(WORKERS)]
            await here.working(*workers)
            for cycle in range(stops):
                # Slow answers, so that whoever is stopped has something in hand.
                await here.gateway.faults(delay=0.5, delay_seconds=0.3)
                before = here.gateway.arrived
                await here.submit(4)
                await here.pushed(before, *workers)
                victim = workers[rng.randrange(WORKERS)]
                victim.signal(signal.SIGSTOP)
                stopped = time.monotonic()
                here.edges.append(here.gateway.arrived)
                await here.gateway.faults()
                await here.submit(2 + cycle % 3)
                await moment(stopped + 1.5 * lease)
                victim.signal(signal.SIGCONT)
            failed = await quit_all(workers)
            stale = sum("was taken over" in worker.said for worker in workers)
            await here.drain()
            audit = await here.audit()
    found = f"{words(audit)}, workers that failed {failed}, that were told {stale}"
    scale = f"{stops} stops of 1.5 leases among {WORKERS} workers, {audit.deliveries:,} deliveries"
    return Finding(found, honest(audit) and failed == 0, scale)


# -- the connection is cut


class Cutter:
    """Stands between its clients and the server, and cuts one connection in so many after it has passed on a COMMIT.

    The server's answer to that is awaited, and not passed on: it was committed, and nobody hears it.
    """

    def __init__(self, port: int, rng: random.Random, share: float) -> None:
        self.port = 0
        self.cuts = 0
        self.share = share
        self._upstream = port
        self._rng = rng
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Cutter:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        doomed = asyncio.Event()
        back = asyncio.create_task(self._back(theirs, writer, doomed))
        try:
            while data := await reader.read(65536):
                if b"COMMIT" in data and self._rng.random() < self.share:
                    doomed.set()
                ours.write(data)
                await ours.drain()
        except OSError:
            pass
        finally:
            if doomed.is_set():
                await back
            back.cancel()
            with suppress(asyncio.CancelledError):
                await back
            for each in (ours, writer):
                each.transport.abort()

    async def _back(self, theirs: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await theirs.read(65536):
                if doomed.is_set():
                    self.cuts += 1
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()


@measured(46, "commit unknown: the connection cut after COMMIT", "no loss, no double notification")
async def cut(form: Form) -> Finding:
    """Every connection of drivers and workers goes through a proxy that swallows the answer to some commits. Half of
    the sends have no key by which a second one would be found out."""
    cycles, count = form.pick(1, 20), form.pick(40, 100)
    rng = form.rng
    async with server(form) as database:
        url = database.url(database.fresh())
        async with Cutter(database.port, rng, 0.0) as cutter:
            through = url.replace(f":{database.port}/", f":{cutter.port}/")
            async with world(form, devices=50, policy={"lease": 1.0}, storage=through) as here:
                workers = [here.work() for _ in range(2)]
                await here.working(*workers)
                cutter.share = 0.2
                refused = 0
                for cycle in range(cycles):
                    driver = here.drive(_rounds(rng, count, f"c{cycle}", 4, keyed=False), single=bool(cycle % 2))
                    refused += await driver.wait(120) != 0
                await until(lambda: cutter.cuts >= cycles, what="a connection that was cut")
                cutter.share = 0.0
                cuts = cutter.cuts
                here.edges.append(here.gateway.arrived)
                failed = await quit_all(workers)
                await here.drain()
                audit = await here.audit(unknown=True)
        twice = await _stored_twice(url)
    found = f"lost {audit.lost}, false {audit.false}, stored twice {twice}, duplicates {audit.duplicates}, drivers refused {refused}, workers that failed {failed}"
    # What was committed is found by its id when it is asked for again, with a key or without: no send is refused.
    good = audit.lost == audit.false == twice == failed == refused == 0 and audit.deliveries > 0 and cuts > 0
    return Finding(found, good, f"{cuts} connections cut, {audit.deliveries:,} deliveries")


# -- the server is stopped


@measured(47, "PostgreSQL stopped at once", "0 lost, 0 falsely accepted, reconnect < 5 s, duplicates within the bound")
async def stopped_at_once(form: Form) -> Finding:
    """`pg_ctl stop -m immediate` under load, and up again: who was promised something has it, and the workers go on by
    themselves."""
    stops, count = form.pick(2, 20), form.pick(60, 400)
    rng = form.rng
    waits: list[float] = []
    async with server(form) as database:
        url = database.url(database.fresh())
        async with world(form, devices=50, policy={"lease": 1.0}, storage=url) as here:
            workers = [here.work() for _ in range(WORKERS)]
            await here.working(*workers)
            for cycle in range(stops):
                driver = here.drive(_rounds(rng, count, f"s{cycle}", 5))
                await here.pushed(here.gateway.arrived, *workers, driver)
                await asyncio.sleep(rng.uniform(0.0, 0.5))
                await asyncio.to_thread(database.stop, "immediate")
                here.edges.append(here.gateway.arrived)
                await asyncio.to_thread(database.up)
                up = time.monotonic()
                await driver.wait(60)
                await _submitted(here, f"after{cycle}")
                await _reached(here, workers)
                waits.append(time.monotonic() - up)
            failed = await quit_all(workers)
            await here.drain()
            audit = await here.audit(unknown=True)
        twice = await _stored_twice(url)
        losses = [await _lost_lease(database) for _ in range(form.pick(1, 10))]
    bound = WORKERS * IN_FLIGHT + max(audit.rates, default=0.0) * (CHECKPOINT + _UNFLUSHED)
    found = (
        f"lost {audit.lost}, false {audit.false}, stored twice {twice}, duplicates {audit.duplicates:,}, worst stop {audit.worst:,} <= "
        f"{bound:,.0f}, workers that failed {failed}, first push {max(waits):.1f} s after the server was back, "
        f"leases that were lost and settled nevertheless {losses.count(False)} of {len(losses)}"
    )
    counts = _kept(audit) and audit.worst <= bound and twice == failed == 0 and all(losses)
    scale = f"{stops} stops, {WORKERS} workers, {audit.deliveries:,} deliveries"
    return Finding(found, counts, scale, time=max(waits) < 5)


def _kept(audit: Audit) -> bool:
    return audit.lost == audit.false == 0 and audit.deliveries > 0


async def _lost_lease(database: PostgresServer) -> bool:
    """A lease is committed without waiting for the disk. A server that fails has forgotten it, its holder has not, and
    another worker leases the same chunk: whether what the first one settles then is refused."""
    # What is committed so stays in the server's memory for that long, where nothing else is written.
    await asyncio.to_thread(database.sql, "ALTER SYSTEM SET wal_writer_delay = '10s'")
    await asyncio.to_thread(database.stop)
    await asyncio.to_thread(database.up)
    location = database.url(database.fresh()).partition(":")[2]
    context = StorageContext(clock=_System())
    for _ in range(10):
        async with AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(PostgresStorage(location, context, believe_callers=True)) for _ in "ab"
            ]
            now = time.time()
            await first.register([device("u", "u")], now)
            await first.put([submission(Target.users(["u"]), now=now)], now)
            (held,) = await first.lease("first", "default", "apns", 1, limit=1, now=now, until=now + 60)
            await asyncio.to_thread(database.stop, "immediate")
            await asyncio.to_thread(database.up)
            taken = await _again(lambda: second.lease("second", "default", "apns", 1, limit=1, now=now, until=now + 60))  # noqa: B023
            mine = Settlement(held.id, held.epoch, {("accepted", ""): [0]})
            if taken:
                (answer,) = await _again(lambda: first.settle([mine], now))  # noqa: B023
                return bool(answer.stale)
            # It had been written all the same.
            await _again(lambda: first.settle([mine], now))  # noqa: B023
    raise RuntimeError("ten leases, and none was lost with the server that had committed it")


async def _again(call: Callable[[], Awaitable[Any]]) -> Any:
    """What it answers, once the connection is there again."""
    end = time.monotonic() + 30
    while True:
        try:
            return await call()
        except StorageUnavailable:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(0.05)


class _System:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


async def _submitted(here: World, title: str) -> None:
    """The auditor's own engine finds the server again, too."""
    for _ in range(20):
        with suppress(Exception):
            await here.submit(1, "user:u1", title=title)
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("nothing could be submitted after the server was back")


async def _reached(here: World, workers: list[Child]) -> None:
    before = here.gateway.arrived
    id = here.promised()[-1]

    async def finished() -> bool:
        with suppress(Exception):
            status = await here.engine.status(id)
            return status.state == "done"
        return False

    if here.gateway.arrived == before:
        await until(finished, 30, "a delivery after the server was back")
    if any(worker.ended for worker in workers):
        raise RuntimeError("a worker ended: " + next(worker.said[-2000:] for worker in workers if worker.ended))


# -- an old transaction


_CLAIMING = 45.0
"""Seconds after which one half of it is enough: on a slow machine the row ends within two minutes too."""


@measured(48, "an old transaction holds xmin", "lease p99 < 2 times the usual")
async def old_snapshot(form: Form) -> Finding:
    """Claims, one chunk each, with and without a transaction that has been idle since before the first: nothing can be
    vacuumed."""
    claims, least = form.pick(60, 5_000), form.pick(60, 500)
    async with server(form) as database:
        usual = await _claims(database, claims, old=False)
        held = await _claims(database, len(usual), old=True)
    p99, worse = (quantiles(times, n=100)[98] * 1e3 for times in (usual, held))
    found = f"p99 of a lease {p99:.1f} ms, with an old snapshot {worse:.1f} ms ({worse / p99:.1f} times)"
    scale = f"{len(held):,} leases, each of one chunk"
    return Finding(found, min(len(usual), len(held)) >= least, scale, time=worse < 2 * p99)


async def _claims(database: PostgresServer, count: int, *, old: bool) -> list[float]:
    name = database.fresh()
    location = database.url(name).partition(":")[2]
    context = StorageContext(clock=VirtualClock(T0), chunk=10)
    times: list[float] = []
    end = time.monotonic() + _CLAIMING
    async with PostgresStorage(location, context, believe_callers=True) as storage:
        users = [f"u{n}" for n in range(10)]
        await storage.register([device(user, user) for user in users], T0)
        snapshot = await asyncpg.connect(database.url(name), server_settings={"search_path": "fanout"})
        try:
            if old:
                await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                await snapshot.fetchval("SELECT count(*) FROM chunk")
            batch = 200
            for first in range(0, count, batch):
                if time.monotonic() > end:
                    break
                now = T0 + first / batch
                await storage.put([submission(Target.users(users), now=now) for _ in range(batch)], now)
                for _ in range(batch):
                    if len(times) == count:
                        break
                    began = time.perf_counter()
                    (chunk,) = await storage.lease("w", "default", "apns", 1, limit=1, now=now, until=now + 30)
                    times.append(time.perf_counter() - began)
                    await storage.settle([Settlement(chunk.id, chunk.epoch, {("accepted", ""): list(range(10))})], now)
        finally:
            await snapshot.close()
    return times


ROWS = [cut, stopped_at_once, old_snapshot]
