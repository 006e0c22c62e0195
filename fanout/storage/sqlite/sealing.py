"""How `storage.sql.sealing` is run on a file: when it is opened, and to seal one that has its addresses in clear."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import apsw

from fanout.errors import StorageError
from fanout.plugin import Sealer, StorageContext
from fanout.storage.sql import sealing
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.failure import translate
from fanout.storage.sqlite.opening import busy_wait, connect
from fanout.storage.sqlite.session import finished, shared

__all__ = ["begin", "seal"]


def begin(db: Db) -> None:
    """See `storage.sql.sealing`. Raises `StorageRefused`."""
    if db.context.sealer is not None and db.value("SELECT record FROM seal") is None:
        _transaction(db, sealing.begin)
    db.seal()


async def seal(location: str, context: StorageContext, progress: Callable[[int], None]) -> int:
    """Seal the addresses stored in clear or under another than the first key; how many endpoints that were. See
    `StoragePlugin`.

    `progress` is called on another thread. After a kill or a cancellation the next call goes on at the same place. At
    the end the file is written anew and its log emptied, so that neither keeps overwritten addresses. That takes room
    for a second copy. Raises `StorageError`.
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
        with closing(connect(location, create=context.create)) as connection:
            return _seal_all(Db(connection, context), context.sealer, location, progress)
    except apsw.Error as error:
        raise translate(error, location) from error


def _seal_all(db: Db, sealer: Sealer, location: str, progress: Callable[[int], None]) -> int:
    async def run(operation: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return _transaction(db, operation, *arguments)

    async def rewrite() -> None:
        # Overwritten bytes stand in free pages until the file is written anew, and in the log until that is emptied.
        db.run("VACUUM")
        if db.value("PRAGMA wal_checkpoint(TRUNCATE)"):
            raise StorageError(
                f"The addresses in {location} are sealed, but another program reads the database, so that its log still holds them in clear: "
                "end that program and run this command again."
            )

    return finished(sealing.seal_all(run, sealer, location, progress, rewrite))


def _transaction(db: Db, operation: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    busy_wait(lambda: db.connection.execute("BEGIN IMMEDIATE"), db.connection.filename)
    try:
        answer = shared(db, operation, *arguments)
        db.run("COMMIT")
    except BaseException:
        db.forget()
        if db.connection.in_transaction:
            db.run("ROLLBACK")
        raise
    return answer
