"""`memory:` is SQLite's in-memory database: the same tables, statements and plans, in one process and with nothing
durable.

Operations run where they are called. There is no file, and so no thread, no lock that another process could hold, no
log and no fsync.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Self

import apsw

from fanout.core.audit import Audit
from fanout.plugin import StorageContext
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.hot import HOT
from fanout.storage.sqlite.operations import Database
from fanout.storage.sqlite.schema import STEPS
from fanout.storage.sqlite.session import finished
from fanout.storage.sqlite.store import SqliteStorage
from fanout.storage.sqlite.worker import Inline

__all__ = ["MemoryStorage", "seal"]

_OWN = "UPDATE feed SET identity = abs(random()) & 4294967295, secret = randomblob(32)"
"""The values that the steps of the schema draw by lot, and each database has of its own."""


class MemoryStorage(SqliteStorage):
    """A `Storage` in this process's memory. Its content ends with this object; two of them are two databases.

    It is open from the beginning, and engines of one event loop that are given the same object share it, at once or one
    after another. Addresses stand there in clear, with an address key too: nothing is at rest.
    """

    shared = False

    def __init__(self, location: str, context: StorageContext) -> None:
        super().__init__(f"memory:{location}", replace(context, sealer=None), offload=Inline)
        finished(self._offload.start(self._open))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Its content stays: the object may be opened again."""

    def _open(self) -> Database:
        self._database = _Database(self.location, self._context, HOT)
        return self._database

    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`. There is neither a file nor a log to look through for remains."""
        return (await self._erase(app, user, now, audit)).endpoints


class _Database(Database):
    """A connection to a database that no other process can open."""

    def _open(self) -> None:
        self._connection = connection = apsw.Connection(":memory:", statementcachesize=200)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)  # see `opening`
        _copy(_tables(), connection)
        connection.execute(_OWN)
        for name, value in (("temp_store", "MEMORY"), ("trusted_schema", "OFF"), ("secure_delete", "ON")):
            connection.pragma(name, value)
        self._db = Db(connection, self._context, self._hot)
        self._seen = connection.data_version()

    def changes(self, *, others: bool = False) -> int:
        """See `Storage`. Every commit goes through this object: another engine of the program too."""
        return self._commits

    def _sync(self, durable: bool) -> None:
        """There is no disk to wait for."""

    def _look_at_files(self) -> None:
        """There are none."""

    def _after_commit(self, began: float) -> None:
        """There is neither a lock that others want nor a log."""


@cache
def _tables() -> bytes:
    """An empty database after all steps of the schema. A copy of it takes a third of a millisecond, the steps take
    seven."""
    connection = apsw.Connection(":memory:")
    for step in STEPS:
        connection.execute(step)
    return connection.serialize("main")


def _copy(content: bytes, connection: apsw.Connection) -> None:
    """Into a database that may grow: a database of `deserialize` ends at a gigabyte."""
    source = apsw.Connection(":memory:")
    source.deserialize("main", content)
    with connection.backup("main", source, "main") as backup:
        backup.step()
    source.close()


async def seal(location: str, context: StorageContext, progress: Callable[[int], None]) -> int:
    """There is nothing at rest here, and so nothing to seal. See `StoragePlugin`."""
    return 0
