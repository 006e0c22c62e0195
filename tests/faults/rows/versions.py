"""Rows 43 and 55: an older version's database, migrated by a process that is killed, and drained by the new version."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import apsw
import orjson

from fanout.core.ids import delivery_id
from fanout.plugin import StorageContext
from fanout.registry import Registry
from fanout.storage.sqlite.schema import STEPS, VERSION
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator.ledger import read_ledger
from fanout_kit.faulty.failpoints import arm
from fanout_kit.faulty.installed import install
from tests.faults.table import Finding, NotRun, measured
from tests.faults.world import Form, world

__all__ = ["ROWS"]

_OLD = Path(__file__).parents[1] / "old"
_TIMES = {
    "endpoint": ("registered_at", "expires_at", "state_at"),
    "notification": ("accepted_at", "due_at", "expires_at", "finished_at"),
    "idempotency": ("at",),
    "expansion": ("due_at",),
    "chunk": ("ready_at",),
    "retry": ("due_at",),
    "event": ("at",),
}


def old_database(path: Path, version: int = 1) -> dict[str, list[str]]:
    """The database that a worker of that schema version left when it was killed, as if that had been just now; what it
    promised."""
    text = (_OLD / f"v{version}.sql").read_text(encoding="utf-8")
    about = orjson.loads(text.partition("\n")[0].removeprefix("-- "))
    # Its leases were of 20 s, and nearly over.
    shift = time.time() - 19 - about.pop("made_at")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(text)
        for table, columns in _TIMES.items():
            for column in columns:
                connection.execute(f"UPDATE {table} SET {column} = {column} + ?", (shift,))
        connection.commit()
    made: dict[str, list[str]] = about
    return made


@measured(55, "upgrade kill test", "0 lost; nothing that had ended is sent again")
async def upgrade(form: Form) -> Finding:
    """The old version wrote and was killed; the new one drains, and is killed now and then itself."""
    kills = form.pick(1, 20)
    form.folder.mkdir(exist_ok=True)
    path = form.folder / "old.db"
    about = old_database(path)
    rng = form.rng
    async with world(form, database=path) as here:
        here.log.write_text("".join(f"{id} \n" for id in about["notifications"]))
        await here.gateway.faults(delay=1.0, delay_seconds=0.1)
        for _ in range(kills):
            worker = here.work()
            await asyncio.sleep(rng.uniform(0.0, 0.4))
            worker.kill()
            await worker.wait()
            here.edges.append(here.gateway.arrived)
        await here.drain()
        audit = await here.audit()
        arrived = {entry.delivery for entry in read_ledger(here.gateway.ledger)}
    accepted = {fanout_delivery(*pair.split(" ")) for pair in about["accepted"]}
    again = len(accepted & arrived)
    # What the old worker had sent and settled is in its gateway's ledger, which is not this one.
    false = audit.false - len(accepted)
    found = f"lost {audit.lost}, false {false}, sent again although ended {again}, duplicates {audit.duplicates}"
    good = audit.lost == 0 and false == 0 and again == 0 and audit.deliveries > 100
    return Finding(
        found,
        good,
        f"schema version 1 by the code of that time, {audit.deliveries} deliveries, {kills} kills of the new one",
    )


def fanout_delivery(id: str, endpoint: str) -> str:
    """The delivery of a pair of texts."""
    return delivery_id(id, int(endpoint))


POINTS = {
    "migrate.inside": 40,
    "commit.before": 6,
    "wal.write": 60,
    "wal.sync": 6,
    "wal.synced": 6,
    "migrate.after": 6,
}
"""Where the migration is killed, and how often at most; where it is over before, so is the search."""


@measured(43, "schema migration killed mid-way", "the old version or the new, never between; then drained, 0 lost")
async def migration(form: Form) -> Finding:
    """The old version's database is opened by the new one, which is killed at each statement, write and fsync of the
    migration."""
    if VERSION < 2:
        raise NotRun("there is one version of the schema so far; it runs from the second on")
    form.folder.mkdir(exist_ok=True)
    shapes = {version: _shape(form.folder / f"clean-{version}.db", version) for version in range(1, VERSION + 1)}
    found_at: Counter[str] = Counter()
    kills = between = 0
    lost = false = 0
    for name, most in POINTS.items():
        hit = 0
        while hit < (most if form.long else 1):
            hit += 1
            path = form.folder / f"{name}-{hit}.db"
            about = old_database(path)
            folder = form.folder / f"w-{name}-{hit}"
            folder.mkdir()
            child = form.nursery.spawn(
                "tests.faults.rows.versions:migrate",
                ["migrate", str(path)],
                log=folder / "log",
                environment={"FANOUT_FAILPOINT": f"{name}:{hit}"},
            )
            code = await child.wait()
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise RuntimeError(f"the migration ended with {code}: {child.said[-1000:]}")
            kills += 1
            with closing(apsw.Connection(str(path))) as connection:
                version = connection.pragma("user_version")
                whole = _schema(connection) == shapes.get(version)
                rows = connection.execute("SELECT count(*) FROM notification").get
            between += not whole or rows != len(about["notifications"])
            found_at[f"version {version}"] += 1
            if form.long or hit == 1:
                clock = VirtualClock(time.time())
                async with Registry().make_storage(f"sqlite:{path}", StorageContext(clock=clock)) as storage:
                    for id in about["notifications"]:
                        lost += await storage.status(id, time.time()) is None
                with closing(apsw.Connection(str(path))) as connection:
                    between += _schema(connection) != shapes[VERSION]
    found = f"between {between}, found at {dict(found_at)}, lost {lost}, false {false}"
    return Finding(
        found, between == lost == 0 and kills > 0 and len(found_at) >= 1, f"{kills} kills from version 1 to {VERSION}"
    )


def migrate() -> int:
    """Open the database of `sys.argv[1]` with the faulty storage, and close it: for a child of the nursery."""

    async def open_and_close() -> None:
        async with Registry().make_storage(
            f"faulty-sqlite:{sys.argv[1]}", StorageContext(clock=VirtualClock(time.time()))
        ):
            pass

    install()
    arm()
    asyncio.run(open_and_close())
    return 0


def _schema(connection: apsw.Connection) -> list[tuple[str, ...]]:
    """Every table and index, as `sqlite_schema` has them, without regard to white space."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
    )
    return [(kind, name, re.sub(r"\s+", " ", sql or "")) for kind, name, sql in rows]


def _shape(path: Path, version: int) -> list[tuple[str, ...]]:
    """The schema of version 1 as it was dumped, and of the later ones as a clean migration of that dump leaves it."""
    old_database(path)
    with closing(apsw.Connection(str(path))) as connection:
        for step in STEPS[1:version]:
            connection.execute(step)
        return _schema(connection)


ROWS = [migration, upgrade]
