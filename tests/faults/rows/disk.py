"""Rows 4 and 30 to 33: power that fails, disks that fill up or break, files that are damaged, a log that grows."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw

import fanout
from fanout.core.policy import Policy
from fanout.engine import Engine, EngineOptions
from fanout.errors import StorageRefused
from fanout.plugin import Storage, StorageContext
from fanout.registry import Registry
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedTransport
from fanout.testing.simulator.ledger import read_ledger
from fanout_kit.faulty.audit import Audit
from fanout_kit.faulty.disk import Recorder, unpowered
from tests.faults.nursery import Child
from tests.faults.rows.kills import words
from tests.faults.table import Finding, NotRun, measured
from tests.faults.world import Form, World, until, world

__all__ = ["ROWS"]


class _System:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def _engine(path: Path, transport: ScriptedTransport | None = None, role: str = "both") -> Engine:
    clock = _System()
    return Engine(
        Registry().make_storage(f"sqlite:{path}", StorageContext(clock=clock, chunk=50)),
        {("default", "push"): transport or ScriptedTransport(record=False)},
        EngineOptions(
            clock=clock,
            rng=random.Random(1),
            policy=Policy(lease=1.0, backoff_base=0.05),
            role=role,  # type: ignore[arg-type]
        ),
    )


@measured(4, "power loss", "FULL: nothing acknowledged is lost, the database is never corrupt")
async def power(form: Form) -> Finding:
    """An engine delivers while every write and fsync is recorded; then the disk is put back together as each moment may
    have left it."""
    states, rounds = form.pick(60, 5200), form.pick(8, 30)
    rng = form.rng
    form.folder.mkdir(exist_ok=True)
    path = form.folder / "x.db"
    recorder = Recorder()
    # (length of the log when the caller knew, notification, deliveries known to have ended)
    known: list[tuple[int, str, int]] = []
    try:
        async with _engine(path) as engine:
            for n in range(120):
                await engine.endpoints.register(user=f"u{n % 3}", binding="push", address=f"d{n}", tags=["t"])
            for n in range(rounds):
                # Early in the run, the log is moved into the file often, as it is after 4 MB in earnest.
                if n % 3 == 0:
                    with closing(apsw.Connection(str(path))) as other:
                        _checkpoint(other)
                receipts = await engine.send_many(
                    [
                        (fanout.Notification(title=f"{n}"), target)
                        for target in (f"user:u{n % 3}", "topic:t" if n % 4 == 0 else "user:u1")
                    ]
                )
                known += [(len(recorder.log), receipt.id, 0) for receipt in receipts]
                if n % 2:
                    for receipt in receipts:
                        status = await receipt.wait(30)
                        known.append((len(recorder.log), receipt.id, status.counts["accepted"]))
    finally:
        recorder.unregister()
    log = recorder.log
    first = known[0][0]
    moves = sum(entry.kind == "write" and entry.name == "x.db" for entry in log)
    lost = corrupt = drained = 0
    for number in range(states):
        # Each moment in turn where there are enough states for that.
        end = first + number * (len(log) - first) // states if states > 200 else rng.randrange(first, len(log) + 1)
        folder = form.folder / "state"
        folder.mkdir()
        for name, content in unpowered(log[:end], rng).items():
            (folder / name).write_bytes(content)
        try:
            storage = Registry().make_storage(
                f"sqlite:{folder}/x.db", StorageContext(clock=VirtualClock(time.time()), chunk=50)
            )
            async with storage:
                for at, id, ended in known:
                    if at <= end:
                        status = await storage.status(id, time.time())
                        lost += status is None or status.counts["accepted"] < ended
            if number % max(10, states // 100) == 0:
                async with _engine(folder / "x.db") as engine:
                    async with asyncio.timeout(60):
                        await engine.drain(poll=0.01)
                    for at, id, _ in known:
                        if at <= end:
                            lost += (await engine.status(id)).counts["pending"] > 0
                drained += 1
        except StorageRefused:
            corrupt += 1
        shutil.rmtree(folder)
    found = f"acknowledged and lost {lost}, corrupt {corrupt}"
    scale = f"{states:,} states of {len(log):,} writes and fsyncs ({moves} into the file), {drained} of them drained to the end"
    return Finding(found, lost == corrupt == 0 and moves > 0, scale)


def _checkpoint(connection: apsw.Connection) -> None:
    """Move the log into the file, once the engine is not in it."""
    connection.set_busy_timeout(10_000)
    connection.execute(
        "SELECT count(*) FROM notification"
    ).fetchall()  # until it has read, a connection knows of no log
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size. Raises `NotRun` where this user may not mount one."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        raise NotRun("needs the right to mount a tmpfs: run it as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


_UNDER_WAY = 10
"""Requests that the row's worker may have under way."""


def brim(ballast: Path) -> None:
    """Take what room there is, to the last byte."""
    with ballast.open("ab", buffering=0) as file:
        for size in (2**20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


async def stalled(here: World, worker: Child, ballast: Path) -> int:
    """The disk fills up while pushes are under way; how many went out although their results could not be stored."""
    stops = worker.said.count("sending stops")
    await here.gateway.faults(delay=1.0, delay_seconds=0.1)
    with closing(apsw.Connection(str(here.database))) as reader:
        # As long as somebody reads what is in the log now, it can only grow: the next result needs room.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM notification").fetchall()
        before = here.gateway.arrived
        await here.submit(60)
        await here.pushed(before, worker)
        # What is deleted elsewhere meanwhile is taken too.
        await until(lambda: brim(ballast) or worker.said.count("sending stops") > stops, 60, "the worker's word")
        requests = (await here.gateway.counters())["requests"]
        await asyncio.sleep(1.0)
        more = int((await here.gateway.counters())["requests"]) - int(requests)
        ballast.unlink()  # noqa: ASYNC240
        reader.execute("COMMIT")
    await here.gateway.faults()
    await until(lambda: _nothing_left(here), 120, "the end of the backlog once there was room")
    # Those that were on their way when it noticed.
    return max(0, more - _UNDER_WAY)


@measured(
    30,
    "disk full",
    "refused with the reason, nothing acknowledged is lost, nothing sent that cannot be stored, goes on when there is room",
)
async def full(form: Form) -> Finding:
    """A tmpfs fills up under a driver and a worker, again and again; what grows is the log, the file and the shared
    memory."""
    cycles, refusals = form.pick(1, 20), 0
    rng = form.rng
    unstorable = 0
    settings = {"connections": 1, "streams": _UNDER_WAY}
    with small_disk(form.folder / "small", 64) as disk:
        async with world(form, devices=50, database=disk / "fanout.db", settings=settings) as here:
            ballast = disk / "ballast"
            worker = here.work()
            for _ in range(cycles):
                unstorable += await stalled(here, worker, ballast)
                room = shutil.disk_usage(disk).free - rng.randrange(0, 400_000)
                ballast.write_bytes(bytes(max(0, room)))
                rounds = [[["all", {"title": "x", "body": "y" * 3000}, None] for _ in range(5)] for _ in range(60)]
                driver = here.drive(rounds)
                code = await driver.wait()
                if code == 3:
                    if "StorageFull" not in driver.said:
                        raise RuntimeError(f"refused for another reason: {driver.said[-500:]}")
                    refusals += driver.said.count("StorageFull")
                ballast.unlink()
                await until(lambda: _nothing_left(here), 60, "the end of the backlog once there was room")
                while await here.engine.storage.prune(time.time() + 30 * 86_400, limit=500):
                    pass
            worker.signal(signal.SIGTERM)
            code = await worker.wait()
            audit = await _audit_kept(here)
    found = f"sent although it could not be stored {unstorable}, refused {refusals}, lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}, worker ended with {code}"
    good = (
        refusals > 0
        and unstorable == 0
        and audit.lost == audit.false == 0
        and audit.duplicates <= 1000 * cycles
        and code == 0
    )
    return Finding(found, good, f"filled up {cycles} times, {audit.deliveries:,} deliveries, a tmpfs of 64 MB")


async def _nothing_left(here: World) -> bool:
    return not await here.engine.storage.outstanding()


async def _audit_kept(here: World) -> Audit:
    """An audit that knows that history was pruned meanwhile: what was, is judged by the ledger."""
    audit = Audit()
    arrived = Counter(entry.notification for entry in read_ledger(here.gateway.ledger))
    for id in here.promised():
        audit.notifications += 1
        audit.deliveries += 50
        audit.lost += max(0, 50 - arrived[id])
    audit.duplicates = sum(arrived.values()) - audit.deliveries
    return audit


@measured(31, "EIO, failed fsync", "the process ends non-zero, the reopened database is consistent, 0 lost")
async def broken(form: Form) -> Finding:
    """Writes and fsyncs of the log and of the file fail under a worker, and under a driver."""
    points = (
        "wal.write",
        "wal.sync",
        "checkpoint.write",
        "checkpoint.sync",
        "settle.before",
        "lease.after",
        "expand.after",
    )
    rng = form.rng
    each = form.pick(1, 10)
    ended: Counter[int] = Counter()
    silent = 0
    async with world(form, devices=form.pick(20, 50), policy={"lease": 0.6}) as here:
        for name in points:
            for _ in range(each):
                driver = here.drive(
                    [[["all", {"title": "x"}, None]] for _ in range(form.pick(4, 10))],
                    failpoint=f"wal.sync:{rng.randint(2, 4)}:io" if rng.random() < 0.3 else "",
                )
                await driver.wait()
                worker = here.work(failpoint=f"{name}:{rng.randint(1, form.pick(2, 4))}:io", checkpoint=20)
                code = await _given_work(here, worker)
                ended[code] += 1
                silent += "Traceback" in worker.said.split("CRITICAL")[0] or not worker.said.strip()
                with closing(apsw.Connection(str(here.database))) as connection:
                    if connection.pragma("quick_check", 1) != "ok":
                        raise RuntimeError("the database is damaged")
                here.edges.append(here.gateway.arrived)
        await here.drain()
        audit = await here.audit(unknown=True)
    found = f"exit codes {dict(ended)}, {words(audit)}"
    good = set(ended) == {1} and audit.lost == audit.false == 0 and audit.deliveries > 0 and not silent
    return Finding(found, good, f"{len(points)} places, {each} times each, {audit.deliveries:,} deliveries")


async def _given_work(here: World, worker: Child) -> int:
    """Its exit code. More is submitted while it has nothing to do: what was may all have been done before it came to
    its failpoint."""
    async with asyncio.timeout(120):
        while not worker.ended:
            if await _nothing_left(here):
                await here.submit(1)
            await asyncio.sleep(0.02)
    return await worker.wait()


@measured(
    32, "file read-only, missing, truncated, a bit flipped", "refuses with a clear sentence; never silently empties"
)
async def damaged(form: Form) -> Finding:
    """Copies of a database with unfinished work are damaged, and a worker is started on each."""
    flips = form.pick(12, 400)
    rng = form.rng
    tally: Counter[str] = Counter()
    emptied = 0
    unclear: list[str] = []
    async with world(form, devices=100) as here:
        await here.submit(30)
        ids = await here.submit(5, "topic:news")
        worker = here.work()
        await until(lambda: here.gateway.arrived > 500, what="500 pushes")
        worker.kill()
        await worker.wait()
        with closing(apsw.Connection(str(here.database))) as connection:
            _checkpoint(connection)
        whole = here.database.read_bytes()
        promised = here.promised()
        before = {id: await _figures(here.engine.storage, id) for id in promised}
        folder = here.folder / "copies"
        folder.mkdir()
        copy = folder / "fanout.db"

        def lay(content: bytes | None) -> None:
            for file in folder.iterdir():
                file.unlink()
            if content is not None:
                copy.write_bytes(content)
                copy.chmod(0o644)

        text = here.config.read_text().replace(str(here.database), str(copy))
        config = here.folder / "copy.toml"
        config.write_text(text)
        fates = {
            "cut in half": whole[: len(whole) // 2],
            "without its last page": whole[:-4096],
            "cut in its header": whole[:60],
            "zeros from the second page": whole[:4096] + bytes(len(whole) - 4096),
            "another program's": b"#!/bin/sh\n" * 1000,
        }
        for fate, content in fates.items():
            lay(content)
            worker = here.work("--drain", config=config)
            code = await worker.wait(30)
            clear = code in (1, 2) and "Traceback" not in worker.said and copy.read_bytes() == content
            tally["refused" if clear else "accepted"] += 1
            unclear += [] if clear else [f"{fate}: exit code {code}: {worker.said[-400:]}"]
        for case in ("read-only", "folder gone"):
            lay(whole)
            uid = 0
            if case == "read-only":
                copy.chmod(0o444)
                uid = 65534 if os.getuid() == 0 else 0
                for parent in [folder, *folder.parents][: len(folder.relative_to("/tmp").parts) + 1]:
                    if parent != Path("/tmp") and os.stat(parent).st_uid == os.getuid():
                        parent.chmod(0o755)
                _readable(here, config)
            else:
                shutil.rmtree(folder)
            worker = here.work("--drain", config=config, uid=uid)
            code = await worker.wait(30)
            clear = code in (1, 2) and "Traceback" not in worker.said and str(copy.parent) in worker.said
            tally["refused" if clear else "accepted"] += 1
            unclear += [] if clear else [f"{case}: exit code {code}: {worker.said[-400:]}"]
            folder.mkdir(exist_ok=True)
        for _ in range(flips):
            place = rng.randrange(len(whole))
            lay(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
            storage = Registry().make_storage(f"sqlite:{copy}", StorageContext(clock=VirtualClock(time.time())))
            try:
                async with storage:
                    after = {id: await _figures(storage, id) for id in promised}
                if not any(after.values()):
                    emptied += 1
                tally["flips unnoticed and harmless" if after == before else "flips that changed a figure"] += 1
            except StorageRefused:
                tally["flips refused"] += 1
            except Exception as error:
                tally[f"flips noticed later ({type(error).__name__})"] += 1
        assert ids
    found = f"emptied {emptied}, without a clear sentence {len(unclear)}; {dict(tally)}"
    return Finding(
        found, emptied == 0 and not unclear, f"7 fates and {flips} flipped bits of {len(whole):,} bytes", tuple(unclear)
    )


async def _figures(storage: Storage, id: str) -> tuple[int | None, dict[str, int]] | None:
    """What a flipped bit must not change."""
    status = await storage.status(id, time.time())
    return None if status is None else (status.total, dict(status.counts))


def _readable(here: World, config: Path) -> None:
    """Let another user read what a worker needs besides the database."""
    config.chmod(0o644)
    certificates = Path(here.gateway.settings["ca_file"])
    certificates.chmod(0o644)
    certificates.parent.chmod(0o755)
    for log in here.folder.glob("work-*.log"):
        log.chmod(0o666)


@measured(33, "WAL growth under a long reader", "bounded by policy once the reader ends; an alarm while it does not")
async def growth(form: Form) -> Finding:
    """Another program holds a read transaction open while a driver and a worker are at it."""
    seconds = form.pick(0.6, 60.0)
    async with world(form, devices=20) as here:
        worker = here.work()
        wal = Path(f"{here.database}-wal")
        peak = 0
        with closing(apsw.Connection(str(here.database))) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM notification").fetchall()
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                await here.submit(20, "user:u1", body="z" * 2000)
                peak = max(peak, _size(wal))
                await until(lambda: _backlog_below(here, 20_000), 60, "a smaller backlog")
            reader.execute("COMMIT")
        await until(lambda: _nothing_left(here), 120, "the end of the backlog")
        await here.submit(20, body="z" * 2000)
        await until(lambda: _nothing_left(here), 120, "the end of the backlog")
        after = _size(wal)
        file = _size(here.database)
        worker.signal(signal.SIGTERM)
        await worker.wait()
        alarm = re.search(r"(?i)write-ahead log|wal", worker.said) is not None
        audit = await here.audit()
    rate = peak / 2**20 / seconds
    found = (
        f"{peak / 2**20:.0f} MB after {seconds:g} s ({rate:.1f} MB/s), {after / 2**20:.0f} MB once the reader had ended "
        f"(file {file / 2**20:.0f} MB), alarm {'given' if alarm else 'none'}, lost {audit.lost}"
    )
    # Below the alarm's threshold there is nothing to say.
    needed = peak > 64 * 2**20
    good = after <= 64 * 2**20 + 20_000_000 and (alarm or not needed) and audit.lost == audit.false == 0
    return Finding(found, good, f"a reader of {seconds:g} s, {audit.deliveries:,} deliveries")


def _size(path: Path) -> int:
    return path.stat().st_size


async def _backlog_below(here: World, count: int) -> bool:
    return sum((await here.engine.storage.outstanding()).values()) < count


ROWS = [power, full, broken, damaged, growth]
