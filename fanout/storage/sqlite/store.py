"""The SQLite storage itself: the contract's methods, each one operation on the database."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from fanout.core.alike import joined
from fanout.core.audit import Audit
from fanout.core.records import Chunk, EndpointRow, Put, Submission
from fanout.errors import ConfigurationError, StorageUnavailable
from fanout.plugin import StorageContext
from fanout.storage.sql.storage import SqlStorage
from fanout.storage.sqlite import leasing, resolving, wiping
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.driver import SqliteDriver
from fanout.storage.sqlite.hot import HOT
from fanout.storage.sqlite.operations import Database, Operation
from fanout.storage.sqlite.schema import APPLICATION_ID
from fanout.storage.sqlite.worker import Inline, Offload, Thread

__all__ = ["Inline", "SqliteStorage", "Thread"]

T = TypeVar("T")

_PIECE = 2**20
"""Bytes of the file that are looked through at a time: a whole number of pages of any size, in about a millisecond."""
_LOOKS, _BETWEEN = 200, 0.05
"""How often the log is tried to be cut, and seconds between two tries."""
_PART = 1000
"""Endpoints read at a time: a millisecond or two, after which others have their turn."""


class SqliteStorage(SqlStorage):
    """A `Storage` in the SQLite file `location`. `offload` says where its operations run: on a thread of its own, or
    `Inline`."""

    shared = True
    in_order = True
    inbox = None

    def __init__(self, location: str, context: StorageContext, *, offload: Callable[[], Offload] = Thread) -> None:
        if location.startswith("//"):
            # SQLAlchemy's form: three slashes for a relative path. Read as a path it would be one from the root.
            raise ConfigurationError(
                'storage: a location of SQLite does not begin with "//": write "sqlite:fanout.db" for a file in the configuration\'s folder, '
                'or "sqlite:/var/lib/fanout.db".'
            )
        self.location = location
        self._context = context
        self._offload = offload()
        driver = SqliteDriver(self._offload, context)
        self._do = driver.do
        super().__init__(driver)
        self._database: Database | None = None
        self._known: set[str] = set()
        """Notifications that this process has put, and so holds prepared: a lease need not bring them. Where it has let
        one go, it asks for it."""

    async def __aenter__(self) -> Self:
        await self._offload.start(self._open)
        return self

    def _open(self) -> Database:
        self._database = Database(self.location, self._context, HOT)
        return self._database

    async def __aexit__(self, *exc: object) -> None:
        await self._offload.stop()
        self._database = None

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        found: T = await self._do(Operation(lambda db: function(db, *arguments), write=False))
        return found

    # -- directory

    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`. Afterwards neither the file nor its log has a byte of the texts: raises `StorageUnavailable`
        while another program keeps the log."""
        erased = await self._erase(app, user, now, audit)
        await self._cut_log()
        if await self._left_over(erased.texts):
            await self._do(Operation(wiping.rewrite, write=False))
            await self._cut_log()
        return erased.endpoints

    async def _cut_log(self) -> None:
        for _ in range(_LOOKS):
            if await self._read(wiping.cut_log):
                return
            await asyncio.sleep(_BETWEEN)
        raise StorageUnavailable(
            f"The user is erased, but another program has been reading in {self.location} all the while, so that its log still holds what was "
            "deleted: end that program, and erase the user again."
        )

    async def _left_over(self, texts: Sequence[bytes]) -> bool:
        """Whether a part of these texts is left where SQLite keeps deleted bytes."""
        if not texts:
            return False
        if not await self._read(wiping.settled):
            return True
        size = await self._read(wiping.size)
        for start in range(0, size, _PIECE):
            look = partial(wiping.look, start=start, length=min(_PIECE, size - start), texts=texts)
            if await self._do(Operation(look, write=False, large=True)):
                return True
        return False

    async def resolve(self, ids: array[int], now: float) -> Sequence[EndpointRow]:
        """See `Storage`."""
        if len(ids) <= _PART:
            return await self._read(resolving.resolve, ids, now)
        parts = [ids[begin : begin + _PART] for begin in range(0, len(ids), _PART)]
        asked = [Operation(partial(resolving.resolve, ids=part, now=now), write=False, large=True) for part in parts]
        await self._do(*asked)
        return joined([operation.result for operation in asked])

    # -- queue: put, lease and settle

    def put(self, submissions: Sequence[Submission], now: float) -> Coroutine[Any, Any, list[Put]]:
        """See `Storage`."""
        if len(self._known) > 16_384:  # twice as many as a dispatcher keeps
            self._known.clear()
        # The dispatcher prepares those that storage fills in, and those that are due later, when it leases them.
        self._known.update(s.id for s in submissions if s.due_at <= now and not (s.feed or s.follows or s.joins))
        return super().put(submissions, now)

    async def lease(
        self, worker: str, app: str, binding: str, lane: int, *, limit: int, now: float, until: float
    ) -> list[Chunk]:
        """See `Storage`."""
        asked = (worker, app, binding, lane, limit, now, until, self._known)
        # Not durable: a machine that lost its power holds no lease.
        operation = Operation(lambda db: leasing.lease(db, *asked), write=True, durable=False, idle=[])
        operation.probe = lambda db: leasing.leasable(db, app, binding, lane, now)
        chunks: list[Chunk] = await self._do(operation)
        return chunks

    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        """See `Storage`."""
        return await self._read(leasing.waiting, app, binding, now)

    async def extend(self, leases: Sequence[tuple[int, int, float]]) -> list[int]:
        """See `Storage`."""
        lost: list[int] = await self._do(Operation(partial(leasing.extend, leases=leases), write=True))
        return lost

    # -- queue: watch and manage

    async def changes(self, *, others: bool = False) -> int:
        """See `Storage`."""
        return await self._read(self._changes, others)

    def _changes(self, db: Db, others: bool) -> int:
        assert self._database is not None
        return self._database.changes(others=others)

    async def probe(self) -> None:
        """See `Storage`."""
        await self._do(Operation(_probe, write=True))


def _probe(db: Db) -> None:
    """Write a page without changing its content: `PRAGMA application_id` always writes the file's header."""
    db.run(f"PRAGMA application_id = {APPLICATION_ID}")
