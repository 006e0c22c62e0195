"""Addresses in the database: whether they are sealed is settled when it is opened; sealing one that has them in clear.

Every transaction that touches addresses reads the table `seal`, and so holds the weakest of locks on it until its end. Who changes the
record takes the strongest: then nobody goes on who has read it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from fanout.core.address import Address
from fanout.plugin import Seal, Sealer, SealRecord, StorageContext, place_of
from fanout.storage.postgres.failure import translate
from fanout.storage.postgres.migrating import migrate
from fanout.storage.postgres.pool import Pool
from fanout.storage.postgres.url import parse
from fanout.storage.sealing import Seals, kept, lookup_digest, unfinished

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["begin", "seal"]

_BATCH = 5000
"""Endpoints in one commit: a tenth of a second."""
_PATIENCE = "60s"
"""For which others are waited for that have read the record before it changes. Meanwhile nobody else gets at an address."""


async def begin(connection: Connection, context: StorageContext, location: str, schema: str) -> None:
    """Seal a database that has no endpoints yet, where a key is configured; otherwise see that the keys fit. Raises `StorageRefused`."""
    async with connection.transaction():
        # For this transaction only: behind a pooler the session is somebody else's afterwards.
        await connection.execute(f"SET LOCAL search_path = {schema}; SET LOCAL statement_timeout = '15s'")
        record = await connection.fetchval("SELECT record FROM seal")
        if record is None and context.sealer is not None:
            await connection.execute("LOCK TABLE seal IN ACCESS EXCLUSIVE MODE")
            record = await connection.fetchval("SELECT record FROM seal")
            if record is None and not await connection.fetchval("SELECT EXISTS (SELECT 1 FROM endpoint)"):
                record = context.sealer.begin(complete=True).dump()
                await connection.execute(_WRITE, record)
    Seals(context.sealer, location).of(record)


_WRITE = """
INSERT INTO seal (id, record, upto) VALUES (1, $1, 0) ON CONFLICT (id) DO UPDATE SET record = excluded.record, upto = excluded.upto
"""


async def seal(location: str, context: StorageContext, progress: Callable[[int], None]) -> int:
    """Seal what stands there in clear or under another than the first key; how many endpoints that were. See `StoragePlugin`.

    Killed on the way it goes on where it was. At the end the tables are written anew, because what was overwritten stands in them until
    then; that takes room for a second copy of one sixteenth of them at a time. The server's write-ahead log and its backups are beyond
    this. Raises `StorageError`.
    """
    assert context.sealer is not None
    options = parse(location)
    connection = await Pool(options).connect()
    try:
        await migrate(connection, options, create=context.create)
        await connection.execute(
            f"SET search_path = {options.schema}; SET statement_timeout = 0; SET lock_timeout = '{_PATIENCE}'"
        )
        return await _seal_all(connection, context.sealer, options.shown, progress)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise translate(error, options.shown) from None
    finally:
        connection.terminate()


async def _seal_all(connection: Connection, sealer: Sealer, location: str, progress: Callable[[int], None]) -> int:
    async with connection.transaction():
        await connection.execute("LOCK TABLE seal IN ACCESS EXCLUSIVE MODE")
        record = await _start(connection, sealer, location)
    if record.complete and record.keys == (record.current,):
        return 0
    new = sealer.open(record, location)
    old = new if record.complete else None
    places = {
        row["id"]: place_of(row["app"], row["name"])
        for row in await connection.fetch(
            "SELECT b.id, a.name AS app, b.name FROM binding b JOIN app a ON a.id = b.app"
        )
    }
    done = 0
    while True:
        async with connection.transaction():
            batch = await _advance(connection, old, new, places)
        if batch is None:
            break
        done += batch
        progress(done)
    for table in await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent IN ('endpoint'::regclass, 'address'::regclass)"
    ):
        await connection.execute(f"VACUUM (FULL) {table['name']}")
    await connection.execute(_WRITE, sealer.settle(record).dump())
    return done


async def _start(connection: Connection, sealer: Sealer, location: str) -> SealRecord:
    """The record to work under: a new one, that of a run that was broken off, or a standing one turned to the first key."""
    text = await connection.fetchval("SELECT record FROM seal")
    if text is None:
        record = sealer.begin(complete=False)
        await connection.execute(_WRITE, record.dump())
        return record
    record = SealRecord.load(text)
    sealer.open(record, location)
    if record.current != sealer.ids[0]:
        if not record.complete:
            raise unfinished(location, record)
        record = sealer.rotate(record, location)
        await connection.execute(_WRITE, record.dump())
    return record


_ROWS = """
SELECT id, binding, address, kind, grp, identity, digest, state FROM endpoint
WHERE id > (SELECT upto FROM seal) ORDER BY id LIMIT $1 FOR NO KEY UPDATE
"""
_UPDATE = """
UPDATE endpoint e SET address = j.address, identity = j.identity, digest = j.digest
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[]) j (id, address, identity, digest)
WHERE e.id = ANY (ARRAY[j.id]) AND e.shard = (j.id & 15)::smallint
"""
_UNHOLD = """
DELETE FROM address a USING unnest($1::int[], $2::bytea[], $3::bigint[]) j (binding, digest, id)
WHERE a.digest = ANY (ARRAY[j.digest]) AND a.binding = j.binding AND a.endpoint = j.id
"""
_HOLD = "INSERT INTO address (binding, digest, endpoint) SELECT * FROM unnest($1::int[], $2::bytea[], $3::bigint[])"


async def _advance(connection: Connection, old: Seal | None, new: Seal, places: dict[int, bytes]) -> int | None:
    """Seal the next endpoints, of which those up to `upto` are done; how many, None where there are no more."""
    rows = await connection.fetch(_ROWS, _BATCH)
    if not rows:
        return None
    changed: list[tuple[Any, ...]] = []
    before: list[tuple[Any, ...]] = []
    after: list[tuple[Any, ...]] = []
    for id, binding, value, kind, group, identity, digest, state in rows:
        if not value or (old is not None and new.is_current(value)):
            continue
        place = places[binding]
        if old is not None:
            value, identity = old.open(place, value), old.open(place, identity)
        address = Address(value, kind, group, identity)
        found = bytes.fromhex(lookup_digest(new, place, address))
        changed.append((id, *kept(new, place, address), found))
        if state == "active" and found != digest:
            before.append((binding, digest, id))
            after.append((binding, found, id))
    await _many(connection, _UPDATE, changed)
    await _many(connection, _UNHOLD, before)
    await _many(connection, _HOLD, after)
    await connection.execute("UPDATE seal SET upto = $1", rows[-1]["id"])
    return len(changed)


async def _many(connection: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        await connection.execute(sql, *zip(*rows, strict=True))
