"""Rows 57 to 65: past one machine. Another server leads, the database is silent, one of several workers is slow."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fanout.core.model import Notification
from fanout.testing.simulator.ledger import read_ledger
from fanout_kit.postgres import PostgresServer
from tests.faults.nursery import Child
from tests.faults.rows.hosts import hosts
from tests.faults.rows.kills import CHECKPOINT
from tests.faults.rows.postgres import Cutter, quit_all, server
from tests.faults.table import Finding, NotRun, Row, measured
from tests.faults.world import Form, World, until, world

__all__ = ["ROWS"]

_STREAMS, _ANSWER = 20, 0.2
"""What a worker of row 63 has under way at once, and in how many seconds the gateway answers."""
_IN_FLIGHT = 300
"""And of row 60."""


class Silencer(Cutter):
    """A proxy that falls silent: nothing is refused or closed, and nothing passes."""

    def __init__(self, port: int, form: Form) -> None:
        super().__init__(port, form.rng, 0.0)
        self.silent, self._over = asyncio.Event(), asyncio.Event()

    async def __aexit__(self, *exc: object) -> None:
        self._over.set()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5)
        await super().__aexit__(*exc)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await super()._serve(_Muffled(reader, self.silent, self._over), writer)  # type: ignore[arg-type]


class _Muffled:
    """Of a client, what is read until the silence. What the server says after it answers nothing that was asked."""

    def __init__(self, reader: asyncio.StreamReader, silent: asyncio.Event, over: asyncio.Event) -> None:
        self._reader, self._silent, self._over = reader, silent, over

    async def read(self, count: int) -> bytes:
        data = await self._reader.read(count)
        if self._silent.is_set():
            await self._over.wait()
            return b""
        return data


async def _done(here: World, ids: list[str]) -> bool:
    try:
        states = [(await here.engine.status(id)).state for id in ids]
    except Exception:
        return False
    return all(state == "done" for state in states)


@measured(59, "promotion without a lag, with lost answers to COMMITs", "all work under way within 5 s, 0 lost")
async def promoted(form: Form) -> Finding:
    """Every COMMIT's answer is lost for a while; then the server ends, and its files are promoted. Leases last for
    thirty seconds."""
    count = form.pick(4, 40)
    async with server(form) as database:
        url = database.url(database.fresh())
        async with Cutter(database.port, form.rng, 0.0) as cutter:
            through = url.replace(f":{database.port}/", f":{cutter.port}/")
            async with world(form, devices=50, policy={"lease": 30.0}, storage=through) as here:
                workers = [here.work() for _ in range(2)]
                await here.working(*workers)
                before = here.gateway.arrived
                ids = await here.submit(count)
                await here.pushed(before, *workers)
                cutter.share = 1.0
                await until(lambda: cutter.cuts >= 3, what="commits whose answers were lost")
                await asyncio.to_thread(_promote, database)
                cutter.share = 0.0
                up = time.monotonic()
                await until(lambda: _done(here, ids), 60, "the end of what was under way")
                took = time.monotonic() - up
                failed = await quit_all(workers)
                audit = await here.audit()
    found = f"all work done {took:.1f} s after the promotion, lost {audit.lost}, false {audit.false}, workers that failed {failed}"
    good = audit.lost == audit.false == failed == 0 and audit.deliveries > 0
    return Finding(found, good, f"{cutter.cuts} answers lost, {audit.deliveries:,} deliveries", time=took < 5)


def _promote(database: PostgresServer) -> None:
    """The same files on the next timeline: what a replica without a lag has."""
    database.stop("fast")
    signal = database.folder / "data" / "standby.signal"
    signal.touch()
    owner = database.folder.stat()
    shutil.chown(signal, owner.st_uid, owner.st_gid)
    database.up()
    database.sql("SELECT pg_promote(true, 60)")


@measured(60, "the database falls silent for one worker", "duplicates <= in flight + rate x (checkpoint + 1 s), 0 lost")
async def silent(form: Form) -> Finding:
    """Its connections neither close nor refuse. It sends what it may, and another worker takes over."""
    devices, before = form.pick(2_200, 5_000), form.pick(1_000, 2_500)
    async with server(form) as database:
        url = database.url(database.fresh())
        limits = {"connections": 1, "streams": _IN_FLIGHT}
        async with world(form, devices=devices, policy={"lease": 4.0}, storage=url, settings=limits) as here:
            await here.gateway.faults(delay=1.0, delay_seconds=0.6)
            async with _apart(form, here, database) as (lonely, silence, how):
                await here.working(lonely)
                await here.submit(1)
                await until(lambda: here.gateway.arrived >= before, 120, "the first pushes")
                await asyncio.to_thread(silence)
                await until(lambda: "Sending stops" in lonely.said, 30, "the end of its sending")
                await _quiet(here)
                lonely.kill()
                await lonely.wait()
            await here.gateway.faults()
            await here.drain()
            audit = await here.audit()
            most = _most([entry.at for entry in read_ledger(here.gateway.ledger)][:before], CHECKPOINT + 1.0)
    bound = _IN_FLIGHT + most
    found = f"duplicates {audit.duplicates:,} <= {bound:,.0f}, lost {audit.lost}, false {audit.false}"
    good = audit.lost == audit.false == 0 < audit.deliveries and audit.duplicates <= bound
    scale = f"{most:,} in a second and a checkpoint, {_IN_FLIGHT} in flight, {audit.deliveries:,} deliveries; {how}"
    return Finding(found, good, scale)


@asynccontextmanager
async def _apart(
    form: Form, here: World, database: PostgresServer
) -> AsyncIterator[tuple[Child, Callable[[], None], str]]:
    """A worker that can be cut off from the database alone, by what, and in words: a host with a cable for the database
    and one for the gateway; without namespaces a proxy."""
    async with AsyncExitStack() as stack:
        gateway = int(str(here.gateway.settings["gateway"]).rpartition(":")[2].strip("/"))
        try:
            (host,) = await stack.enter_async_context(hosts(form, [gateway], [database.port], count=1))
        except NotRun:
            proxy = await stack.enter_async_context(Silencer(database.port, form))
            loop = asyncio.get_running_loop()
            config = here.folder / "silent.toml"
            config.write_text(here.config.read_text().replace(f":{database.port}/", f":{proxy.port}/"))
            yield (
                here.work(config=config),
                lambda: loop.call_soon_threadsafe(proxy.silent.set),
                "through a silent proxy",
            )  # type: ignore[misc]
        else:
            yield here.work(network=host.name), lambda: host.plug(1, plugged=False), "its cable pulled"


def _most(times: list[float], seconds: float) -> int:
    """The most that arrived in so many seconds."""
    return max(sum(begun <= at <= begun + seconds for at in times) for begun in times)


async def _quiet(here: World) -> None:
    """Until what was under way has arrived."""
    last = -1
    while here.gateway.arrived != last:
        last = here.gateway.arrived
        await asyncio.sleep(1.0)


@measured(
    63,
    "four workers, each with room for 20",
    "400 urgent singles within 2 s; a backlog of 1,600 3.2 times as fast as one",
)
async def four_workers(form: Form) -> Finding:
    """The gateway answers after 200 ms, so that no core is full."""
    urgent, backlog = form.pick(80, 400), form.pick(160, 1_600)
    took: dict[str, float] = {}
    bad = 0
    for kind, count, workers in (
        ("urgent", urgent, 4),
        ("singles", backlog, 4),
        ("broadcast", backlog, 4),
        ("singles", backlog, 1),
        ("broadcast", backlog, 1),
    ):
        took[f"{kind} {workers}"], wrong = await _sent(form, kind, count, workers)
        bad += wrong
    ratios = [took[f"{kind} 1"] / took[f"{kind} 4"] for kind in ("singles", "broadcast")]
    found = (
        f"urgent singles within {took['urgent 4']:.1f} s, singles {ratios[0]:.1f} times as fast as one worker, "
        f"a broadcast {ratios[1]:.1f} times, not sent exactly once {bad}"
    )
    return Finding(found, bad == 0, f"{urgent} and {backlog:,}", time=took["urgent 4"] <= 2 and min(ratios) >= 3.2)


async def _sent(form: Form, kind: str, count: int, number: int) -> tuple[float, int]:
    """Seconds until the last push arrived, and how many were not sent exactly once."""
    limits: dict[str, Any] = {"connections": 1, "streams": _STREAMS}
    async with world(form, settings=limits) as here:
        await here.register(count, users=count)
        await here.gateway.faults(delay=1.0, delay_seconds=_ANSWER)
        workers: list[Child] = [here.work() for _ in range(number)]
        await here.working(*workers)
        began = time.monotonic()
        if kind == "broadcast":
            await here.submit(1)
        else:
            note = Notification(title="x", lane="urgent" if kind == "urgent" else "normal")
            receipts = await here.engine.send_many([(note, f"user:u{user}") for user in range(count)])
            here.log.write_text("".join(f"{receipt.id} \n" for receipt in receipts))
        await until(lambda: here.gateway.arrived >= count, 120, "the last push")
        took = time.monotonic() - began
        failed = await quit_all(workers)
        audit = await here.audit()
    return took, audit.lost + audit.false + audit.duplicates + failed + abs(audit.deliveries - count)


ROWS = [
    Row(
        number=57,
        figure="a standby promoted with a lag",
        limit="no number given twice, cursors and feeds begin anew",
        see=("tests/postgres/test_switching.py",),
    ),
    Row(
        number=58,
        figure="a synchronous standby that is away",
        limit="0 acknowledged that it lacks, no connection beyond the pool",
        see=("tests/postgres/test_standby.py",),
    ),
    promoted,
    silent,
    Row(number=61, figure="a dark host of several", limit="the next within the one deadline", see=("tests/postgres/test_dialing.py",)),
    Row(number=62, figure="tables that were never analysed", limit="one plan for each statement", see=("tests/postgres/test_statements.py",)),
    four_workers,
    Row(number=64, figure="a right or a way in is taken for seconds", limit="no worker ends", see=("tests/postgres/test_trouble.py",)),
    Row(number=65, figure="metrics while the database is dark", limit="within a second, marked as old", see=("tests/metrics/test_render.py",)),
]  # fmt: skip
