"""Addresses in the file: whether they are sealed is settled when it is opened; sealing a file that has them in clear."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apsw

from fanout.core.address import Address
from fanout.errors import StorageError
from fanout.plugin import Seal, Sealer, SealRecord, StorageContext
from fanout.storage.sealing import kept, lookup_digest, unfinished
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.failure import translate
from fanout.storage.sqlite.opening import busy_wait, connect

__all__ = ["begin", "seal"]

_BATCH = 5000
"""Endpoints in one commit: a tenth of a second."""


def begin(db: Db) -> None:
    """Seal a database that has no endpoints yet, where a key is configured; otherwise see that the keys fit. Raises `StorageRefused`."""
    sealer = db.context.sealer

    def seal_if_empty() -> None:
        if sealer is not None and _record(db) is None and not db.value("SELECT 1 FROM endpoint LIMIT 1"):
            _write(db, sealer.begin(complete=True), 0)

    if sealer is not None and _record(db) is None:
        _transaction(db, seal_if_empty)
    db.seal()


def _record(db: Db) -> SealRecord | None:
    found = db.value("SELECT record FROM seal")
    return None if found is None else SealRecord.load(found)


def _write(db: Db, record: SealRecord, upto: int) -> None:
    db.run("INSERT OR REPLACE INTO seal (id, record, upto) VALUES (1, ?, ?)", record.dump(), upto)


async def seal(location: str, context: StorageContext, progress: Callable[[int], None]) -> int:
    """Seal what stands there in clear or under another than the first key; how many endpoints that were. See `StoragePlugin`.

    `progress` is called on another thread. Killed or cancelled on the way it goes on where it was. At the end the file is written anew and its log emptied, so that neither keeps what
    has been overwritten; that takes room for a second copy. Raises `StorageError`.
    """
    stopped = False

    def report(done: int) -> None:
        if stopped:
            raise StorageError(f"Sealing the addresses in {location} was broken off: run the command again.")
        progress(done)

    with ThreadPoolExecutor(1, "fanout-seal") as thread:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, _seal, location, context, report)
        except asyncio.CancelledError:
            stopped = True
            raise


def _seal(location: str, context: StorageContext, progress: Callable[[int], None]) -> int:
    assert context.sealer is not None
    try:
        connection = connect(location, create=context.create)
    except apsw.Error as error:
        raise translate(error, location) from error
    try:
        return _seal_all(Db(connection, context), context.sealer, location, progress)
    except apsw.Error as error:
        raise translate(error, location) from error
    finally:
        connection.close()


def _seal_all(db: Db, sealer: Sealer, location: str, progress: Callable[[int], None]) -> int:
    record = _transaction(db, lambda: _start(db, sealer, location))
    if record.complete and record.keys == (record.current,):
        return 0
    old = None if not record.complete else sealer.open(record, location)
    new = sealer.open(record, location)
    done = 0
    while (batch := _transaction(db, lambda: _advance(db, old, new))) is not None:
        done += batch
        progress(done)
    # What was overwritten stands in free pages until the file is written anew, and in the log until that is emptied.
    db.run("VACUUM")
    if db.value("PRAGMA wal_checkpoint(TRUNCATE)"):
        raise StorageError(
            f"The addresses in {location} are sealed, but another program reads the database, so that its log still holds them in clear: "
            "end that program and run this command again."
        )
    _transaction(db, lambda: _write(db, sealer.settle(record), 0))
    return done


def _start(db: Db, sealer: Sealer, location: str) -> SealRecord:
    """The record to work under: a new one, that of a run that was broken off, or a standing one turned to the first key."""
    record = _record(db)
    if record is None:
        record = sealer.begin(complete=False)
        _write(db, record, 0)
    elif record.current != sealer.ids[0]:
        if not record.complete:
            sealer.open(record, location)
            raise unfinished(location, record)
        record = sealer.rotate(record, location)
        _write(db, record, 0)
    else:
        sealer.open(record, location)
    return record


def _advance(db: Db, old: Seal | None, new: Seal) -> int | None:
    """Seal the next endpoints, of which those up to `upto` are done; how many, None where there are no more."""
    upto = db.value("SELECT upto FROM seal")
    rows = db.rows(
        "id, binding, address, kind, grp, identity",
        "(SELECT * FROM endpoint WHERE id > ? ORDER BY id LIMIT ?)",
        upto,
        _BATCH,
    )
    if not rows:
        return None
    changed: list[list[Any]] = []
    for id, binding, value, kind, group, identity in rows:
        if not value or (old is not None and new.is_current(value)):
            continue
        place = db.place(binding)
        if old is not None:
            value, identity = old.open(place, value), old.open(place, identity)
        address = Address(value, kind, group, identity)
        changed.append([id, *kept(new, place, address), lookup_digest(new, place, address)])
    db.many(
        "UPDATE endpoint SET address = j.value->>1, identity = j.value->>2, digest = unhex(j.value->>3) "
        "FROM jsonb_each(?) j WHERE endpoint.id = j.value->>0",
        changed,
    )
    db.run("UPDATE seal SET upto = ?", rows[-1][0])
    return len(changed)


def _transaction(db: Db, action: Callable[[], Any]) -> Any:
    busy_wait(lambda: db.connection.execute("BEGIN IMMEDIATE"), db.connection.filename)
    try:
        answer = action()
        db.run("COMMIT")
    except BaseException:
        db.forget()
        if db.connection.in_transaction:
            db.run("ROLLBACK")
        raise
    return answer
