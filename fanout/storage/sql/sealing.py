"""Addresses in the database: whether they are sealed is settled when it is opened; sealing a database that has them in
clear.

Every transaction that touches addresses reads the table `seal`. A transaction that changes the record waits for those
that have read the old one, and others wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fanout.core.address import Address
from fanout.plugin import Seal, Sealer, SealRecord
from fanout.storage.sealing import kept, lookup_digest, unfinished
from fanout.storage.sql.db import Db, overwrite

__all__ = ["begin", "seal_all"]

_BATCH = 5000
"""Endpoints in one commit: a tenth of a second."""


async def begin(db: Db) -> None:
    """Seal a database that has no endpoints yet, where a key is configured; otherwise see that the keys fit. Raises
    `StorageRefused`."""
    sealer = db.context.sealer
    if sealer is not None and await _record(db) is None:
        await db.exclusive("seal")
        if await _record(db) is None and await db.value("SELECT 1 FROM endpoint LIMIT 1") is None:
            await _write(db, sealer.begin(complete=True))
    await db.seal()


async def seal_all(
    run: Callable[..., Awaitable[Any]],
    sealer: Sealer,
    location: str,
    progress: Callable[[int], None],
    rewrite: Callable[[], Awaitable[None]],
) -> int:
    """Seal the addresses stored in clear or under another than the first key; how many endpoints that were.

    `run` runs an operation in a transaction of its own; killed between two, it goes on where it was. `rewrite` sees to
    it that no overwritten address is left on disk.
    """
    record: SealRecord = await run(_start, sealer, location)
    if record.complete and record.keys == (record.current,):
        return 0
    new = sealer.open(record, location)
    old = new if record.complete else None
    done = 0
    while (batch := await run(_advance, old, new)) is not None:
        done += batch
        progress(done)
    await rewrite()
    await run(_write, sealer.settle(record))
    return done


async def _record(db: Db) -> SealRecord | None:
    found = await db.value("SELECT record FROM seal")
    return None if found is None else SealRecord.load(found)


async def _write(db: Db, record: SealRecord) -> None:
    await db.run(
        f"INSERT INTO seal (id, record, upto) VALUES (1, $1, 0) ON CONFLICT (id) {overwrite('record', 'upto')}",
        record.dump(),
    )


async def _start(db: Db, sealer: Sealer, location: str) -> SealRecord:
    """The record to work under: a new one, that of a run that was broken off, or a standing one turned to the first
    key."""
    await db.exclusive("seal")
    record = await _record(db)
    if record is None:
        record = sealer.begin(complete=False)
        await _write(db, record)
        return record
    sealer.open(record, location)
    if record.current != sealer.ids[0]:
        if not record.complete:
            raise unfinished(location, record)
        record = sealer.rotate(record, location)
        await _write(db, record)
    return record


async def _advance(db: Db, old: Seal | None, new: Seal) -> int | None:
    """Seal the next endpoints, of which those up to `upto` are done; how many, None where there are no more."""
    rows = await db.rows(
        f"SELECT id, binding, address, kind, grp, identity, {db.binary('digest')}, state FROM endpoint "
        f"WHERE id > (SELECT upto FROM seal) ORDER BY id LIMIT $1{db.hold()}",
        _BATCH,
    )
    if not rows:
        return None
    changed: list[tuple[int, str, str, bytes]] = []
    before: list[tuple[int, bytes, int]] = []
    after: list[tuple[int, bytes, int]] = []
    for id, binding, value, kind, group, identity, digest, state in rows:
        if not value or (old is not None and new.is_current(value)):
            continue
        place = await db.place(binding)
        if old is not None:
            value, identity = old.open(place, value), old.open(place, identity)
        address = Address(value, kind, group, identity)
        former, found = db.bytes_of(digest), bytes.fromhex(lookup_digest(new, place, address))
        changed.append((id, *kept(new, place, address), found))
        if state == "active" and found != former:
            before.append((binding, former, id))
            after.append((binding, found, id))
    columns = {"id": "bigint", "address": "text", "identity": "text", "digest": "bytea"}
    await db.many(
        f"UPDATE endpoint SET address = j.address, identity = j.identity, digest = j.digest FROM {db.given(1, **columns)} "
        f"WHERE {db.keyed('endpoint.id', 'j.id')}{db.part('endpoint', 'j.id & 15')}",
        changed,
    )
    await db.free_addresses(before)
    await db.hold_addresses(after)
    await db.run("UPDATE seal SET upto = $1", rows[-1][0])
    return len(changed)
