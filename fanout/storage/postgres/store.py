"""The PostgreSQL storage itself: the contract's methods, each one operation on the database."""

from __future__ import annotations

import contextlib
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Self

from fanout.core.audit import Audit
from fanout.core.endpoint import Endpoint, Registration
from fanout.core.records import Chunk, EndpointRow, Event, Put, Settled, Settlement, Status, Step, Submission
from fanout.errors import StorageError, StorageUnavailable
from fanout.plugin import Clock, StorageContext
from fanout.storage.postgres import inbox, leasing, resolving, watching
from fanout.storage.postgres.analyzing import Imported, analyze
from fanout.storage.postgres.db import COPY_FROM
from fanout.storage.postgres.failure import Unknown
from fanout.storage.postgres.gathering import Gathering
from fanout.storage.postgres.hot import HOT
from fanout.storage.postgres.listening import Listener
from fanout.storage.postgres.migrating import migrate
from fanout.storage.postgres.operations import Database
from fanout.storage.postgres.partitions import Emptied
from fanout.storage.postgres.pool import Pool
from fanout.storage.postgres.sealing import begin
from fanout.storage.postgres.url import parse
from fanout.storage.sql import settling
from fanout.storage.sql.storage import SqlStorage
from fanout.storage.sql.watching import audited

__all__ = ["PostgresStorage", "make"]

_CUTS = 5
"""How many connections that were made may be lost, one after the other, before a database cannot be opened."""


def make(location: str, context: StorageContext) -> PostgresStorage:
    """The storage at the URL `postgresql:` + `location` (see `url`). With a clock that is not the machine's, callers'
    times are believed."""
    machine = getattr(context.clock, "now", None) is time.time
    return PostgresStorage(location, context, believe_callers=not machine)


class PostgresStorage(SqlStorage):
    """A `Storage` in the PostgreSQL database at `location`, a URL without its scheme (see `url`). Nothing is connected
    before it is entered.

    Leases end by the database's clock, whose distance from this machine's is measured; `believe_callers`: it is taken
    to be none, because the callers' clock is made for a simulation or a test. Raises `ConfigurationError` for a URL
    that cannot be used.
    """

    shared = True
    in_order = False

    def __init__(self, location: str, context: StorageContext, *, believe_callers: bool = False) -> None:
        options = parse(location)
        self.location = options.shown
        self._context = context
        self._pool = Pool(options)
        self._database = Database(self._pool, context, HOT, believed=believe_callers)
        super().__init__(self._database)
        self._in_doubt: set[tuple[int, int]] = set()
        """Chunks and epochs of settlements whose answers were never heard."""
        self._emptied, self._emptied_of = Emptied(), 0
        self._believe_callers = believe_callers
        self._imported = Imported()
        self.inbox = inbox.PostgresInbox(self._database, context, options.schema)
        self._look, self._read, self._write = self._database.look, self._database.read, self._database.write
        self._gathering = Gathering(super().put, self._database.knows, self._database.enter)

    @property
    def incarnation(self) -> int:
        """See `Storage`."""
        return self._database.incarnation

    @property
    def remarks(self) -> list[str]:
        """The report of `fanout doctor` about a database that can be used."""
        last = self._pool.last
        if last is not None and last.commits == "off":
            return [
                "synchronous_commit is off there: acknowledged writes use 'local' all the same; set it to on, or keep it."
            ]
        return []

    @property
    def clock(self) -> Clock | None:
        """See `Storage`: the database's, as known here; None where callers' times are believed."""
        return None if self._believe_callers else self._database.clock

    async def __aenter__(self) -> Self:
        losses = 0
        while True:
            connection = await self._pool.connect()
            try:
                await migrate(connection, self._pool.options, create=self._context.create)
                await begin(connection, self._context, self.location, self._pool.options.schema)
                break
            except StorageUnavailable:
                # A connection that is cut on the way: the following steps find its results.
                losses += 1
                if losses > _CUTS or not connection.is_closed():
                    raise
            finally:
                connection.terminate()
        self._pool.open()
        try:
            await self._database.measure()
        except BaseException:
            await self._pool.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._database.listener is not None:
            await self._database.listener.close()
        await self._pool.close()

    # -- directory

    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        """See `Storage`."""
        found = await super().register(registrations, now)
        if len(registrations) >= COPY_FROM and self._imported.due(len(registrations)):
            with contextlib.suppress(StorageError):  # the registrations are stored
                await self._write(analyze, durable=False, quiet=True)
        return found

    async def resolve(self, ids: array[int], now: float) -> Sequence[EndpointRow]:
        """See `Storage`."""
        return await self._look(resolving.resolve, ids, now)

    # -- queue: submit and put

    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        """See `Storage`."""
        return await self._gathering.put(submissions, now)

    # -- queue: lease and settle

    async def lease(
        self, worker: str, app: str, binding: str, lane: int, *, limit: int, now: float, until: float
    ) -> list[Chunk]:
        """See `Storage`."""
        asked = (worker, app, binding, lane, limit, now, until)
        return await self._write(leasing.lease, *asked, durable=False, announced=False)

    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        """See `Storage`."""
        return await self._look(leasing.waiting, app, binding, now)

    async def extend(self, leases: Sequence[tuple[int, int, float]]) -> list[int]:
        """See `Storage`."""
        return await self._write(leasing.extend, leases, durable=False, announced=False)

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """See `Storage`."""
        these = {(settlement.chunk, settlement.epoch) for settlement in settlements}
        again = not these.isdisjoint(self._in_doubt)
        try:
            answers: list[Settled] = await self._write(settling.settle, settlements, now, durable="local", again=again)
        except Unknown:
            # The engine will settle the same again, which then looks first at the stored rows.
            self._in_doubt |= these
            raise
        self._in_doubt -= these
        if any(answer.finished for answer in answers):
            self.hurry()
        return answers

    async def finished(self, ids: Sequence[str]) -> set[str]:
        """See `Storage`."""
        return await self._look(inbox.finished, ids)

    # -- queue: watch and manage

    async def status(self, id: str, now: float) -> Status | None:
        """See `Storage`."""
        return await self._look(inbox.status, id, now)

    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        """See `Storage`."""
        return await self._read(inbox.explain, id, endpoint)

    async def cancel(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        return await self._write(audited, audit, inbox.cancel, app, id, now)

    async def outstanding(self, app: str | None = None) -> dict[str, int]:
        """See `Storage`."""
        return await self._look(inbox.outstanding, app)

    async def changes(self, *, others: bool = False) -> int:
        """See `Storage`."""
        number = await self._database.changes(others=others, low=self.inbox.low)
        self.inbox.pending, self._database.pending = self.inbox.pending or self._database.pending, False
        return number

    def listen(self, heard: Callable[[], None]) -> None:
        """See `Storage`."""
        if self._database.listener is None:

            def hear() -> None:
                self._database.heard = True
                heard()

            self._database.listener = listener = Listener(self._pool)
            listener.begin(hear)

    def hurry(self) -> None:
        """See `Storage`."""
        if self._database.listener is not None:
            self._database.listener.hurry()

    async def probe(self) -> None:
        """See `Storage`."""
        await self._write(watching.probe, quiet=True)

    async def events(self, *, after: int = 0, limit: int = 1000, audit: bool = False) -> list[Event]:
        """See `Storage`."""
        if await self._look(watching.unnumbered):
            await self._write(watching.number, quiet=True)
        return await super().events(after=after, limit=limit, audit=audit)

    # -- janitor

    async def prune(self, now: float, *, limit: int) -> int:
        """See `Storage`. The bytes that retry rows have left on disk are removed in a transaction of their own."""
        done = await super().prune(now, limit=limit)
        if done < limit and await self._look(inbox.prunable, now):
            done += await self._write(inbox.prune, now, limit - done)
        if self._emptied_of != self.incarnation:
            self._emptied, self._emptied_of = Emptied(), self.incarnation
        empty = await self._look(self._emptied.look, time.monotonic())
        if empty:
            await self._write(self._emptied.give_back, empty, durable=False, quiet=True)
        return done
