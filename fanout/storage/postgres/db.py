"""One transaction as the rest of the package uses it: `$1` and columns in, records out, and the few rows that everything shares.

A statement over many rows has one possible plan: its array first, then the table, by one index. Else a plan that was made when a table
was empty, or never analysed, reads all of it for each call. So a table stands behind a fence, which the planner does not take down:
`FROM unnest(...) j CROSS JOIN LATERAL (SELECT ... FROM t WHERE key = j.key OFFSET 0) t WHERE t.state = ...`, with the key alone inside, as
other conditions would admit other indexes. The table of an UPDATE or DELETE cannot stand there: `WHERE t.key = ANY (ARRAY[j.key])` admits
the loop from `j` alone, as that is no equality by which the planner could begin with `t`, in the order of an index. `FOR UPDATE` stands inside
the fence, and the array in the order in which rows are to be locked. `num_nulls(x) = 1` is `x IS NULL`, but for indexes on that condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fanout.core.audit import Audit
from fanout.plugin import Seal, StorageContext, place_of
from fanout.storage.carried import CarriedClock
from fanout.storage.packing import dumps, pack, unpack
from fanout.storage.postgres.floors import Floors
from fanout.storage.postgres.naming import Used
from fanout.storage.sealing import Seals

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["CLOCK", "Db", "Known", "dumps", "pack", "unpack"]

CLOCK = "extract(epoch FROM clock_timestamp())::float8"
"""The database's UNIX seconds at the moment, not at the beginning of the transaction."""


class Known:
    """What one pool has learned of its database for good: apps' and bindings' numbers, and how far the clocks are apart."""

    __slots__ = ("_make", "apps", "bindings", "clock", "floors", "names", "places", "seals", "skew")

    def __init__(self, context: StorageContext, location: str) -> None:
        self.places: dict[int, tuple[bytes, int, str, str]] = {}
        self.seals = Seals(context.sealer, location)
        self.apps: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.bindings: dict[tuple[int, str], int] = {}
        self.floors = Floors()
        self.clock = CarriedClock(context.clock)
        self.skew = 0.0
        self._make = partial(Known, context, location)

    def renewed(self) -> Known:
        """Of another database: nothing is known yet, and the clock, which others hold, goes by that one's as soon as it is told."""
        made = self._make()
        made.clock, made.skew = self.clock, self.skew
        made.clock.forget()
        return made


class Db:
    """One connection inside one transaction; or, for a read of one statement, without one.

    `again` says that an earlier run of the same operation with the same arguments may have been committed: its connection was
    lost after COMMIT had been sent, and nobody heard the answer. An operation that would then answer wrongly, or do something twice,
    looks first at what it finds. An operation that found nothing to do says so by `silent`: then nobody is told of a change.
    `carried`: callers' times are the database's own, from `PostgresStorage.clock`. `repeats` counts how often others have come in between, and the operation was run anew.
    """

    __slots__ = (
        "_apps",
        "_bindings",
        "_known",
        "_seal",
        "again",
        "believed",
        "carried",
        "connection",
        "context",
        "repeats",
        "silent",
        "used",
    )

    def __init__(
        self,
        connection: Connection,
        context: StorageContext,
        known: Known,
        *,
        again: bool = False,
        believed: bool = True,
        carried: bool = False,
        repeats: int = 0,
    ) -> None:
        self.connection = connection
        self.context = context
        self.again = again
        self.believed = believed
        self.carried = carried
        self.silent = False
        self.repeats = repeats
        self.used = Used()
        self._known = known
        self._apps: dict[str, int] = {}
        self._bindings: dict[tuple[int, str], int] = {}
        self._seal: tuple[Seal | None] | None = None

    async def value(self, sql: str, *args: Any) -> Any:
        """The first column of the first row, or None."""
        return await self.connection.fetchval(sql, *args)

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        """All rows of a statement, as asyncpg's records: by position, by name, and to be taken apart."""
        found: list[Any] = await self.connection.fetch(sql, *args)
        return found

    async def row(self, sql: str, *args: Any) -> Any:
        """The first row, or None."""
        return await self.connection.fetchrow(sql, *args)

    async def run(self, sql: str, *args: Any) -> str:
        """A statement without an answer. Returns its command tag, such as ``UPDATE 3``."""
        return str(await self.connection.execute(sql, *args)) if args else await self._bare(sql)

    async def _bare(self, sql: str) -> str:
        # Without arguments asyncpg would send the text to be parsed anew each time.
        await self.connection.fetch(sql)
        return ""

    async def many(self, sql: str, rows: Iterable[Sequence[Any]], *args: Any) -> str:
        """A statement over many rows: it reads their columns from `unnest($1::…[], $2::…[], …)`, and `args` follow those.

        Nothing happens without rows. An array cannot be a value in such a row: it would be flattened. Returns the command tag.
        """
        columns = list(zip(*rows, strict=True))
        if not columns:
            return ""
        return str(await self.connection.execute(sql, *columns, *args))

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[Any]]) -> None:
        """Rows into a table by COPY: for hundreds and more, of which none may conflict."""
        await self.connection.copy_records_to_table(table, records=records, columns=columns)

    @property
    def floors(self) -> Floors:
        """From where on due chunks are looked for."""
        return self._known.floors

    # -- time

    @property
    def skew(self) -> float:
        """Seconds by which the database's clock is ahead of the caller's. 0 where the caller's times are `believed`, as those are
        that an engine takes from `PostgresStorage.clock`."""
        return self._known.skew

    async def read_clock(self) -> None:
        """Ask the database for the time, and go by it."""
        before = self.context.clock.monotonic()
        self.told(await self.value(f"SELECT {CLOCK}"), before)

    def told(self, now: float, before: float) -> None:
        """A statement that was sent at `before` (monotonic seconds) has just answered `CLOCK`."""
        self._known.clock.told(now, before)
        self.measured(now)

    def measured(self, database_now: float) -> None:
        """A statement just read the database's clock, for a caller who has one of his own."""
        if not self.believed:
            self._known.skew = database_now - self.context.clock.now()

    # -- names

    async def app(self, name: str, *, create: bool = False) -> int:
        """The number of an app; 0 for one that nothing is known of, unless it is to be created."""
        number = self._known.apps.get(name)
        if number is not None:
            self.used.app(number, name)
            return number
        number = self._apps.get(name)
        if number is None:
            number = await self.value("SELECT id FROM app WHERE name = $1", name)
            if number is None:
                if not create:
                    return 0
                await self.run("INSERT INTO app (name) VALUES ($1) ON CONFLICT DO NOTHING", name)
                number = await self.value("SELECT id FROM app WHERE name = $1", name)
            self._apps[name] = number
        return number

    async def binding(self, app: int, name: str, *, create: bool = False) -> int:
        """The number of an app's binding; 0 for one that nothing is known of, unless it is to be created."""
        number = self._known.bindings.get((app, name))
        if number is not None:
            self.used.binding(number, name, app)
            return number
        number = self._bindings.get((app, name))
        if number is None:
            number = await self.value("SELECT id FROM binding WHERE app = $1 AND name = $2", app, name)
            if number is None:
                if not create:
                    return 0
                await self.run("INSERT INTO binding (app, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", app, name)
                number = await self.value("SELECT id FROM binding WHERE app = $1 AND name = $2", app, name)
            self._bindings[app, name] = number
        return number

    async def binding_name(self, number: int) -> str:
        """The name of the binding of that number, which there is."""
        name = self._known.names.get(number)
        if name is not None:
            self.used.binding(number, name)
        else:
            name = await self.value("SELECT name FROM binding WHERE id = $1", number)
            # Rolled back, the number is never given again: so it may be kept before the commit.
            self._known.names[number] = name
        return name

    # -- addresses

    async def seal(self) -> Seal | None:
        """What addresses are sealed with, until the end of this transaction; None where they stand in clear. Raises `StorageRefused`."""
        if self._seal is None:
            self._seal = (self.seal_of(await self.value("SELECT record FROM seal")),)
        return self._seal[0]

    def seal_of(self, record: str | None) -> Seal | None:
        """The seal of a record that a statement read together with addresses."""
        return self._known.seals.of(record)

    async def places(self, bindings: Iterable[int]) -> dict[int, bytes]:
        """Where the addresses of bindings belong, by their numbers."""
        places = self._known.places
        wanted = set(bindings)
        unknown = [number for number in wanted if number not in places]
        for number in wanted.difference(unknown):
            _, app, of, name = places[number]
            self.used.app(app, of)
            self.used.binding(number, name, app)
        if unknown:
            # Rolled back, the numbers are never given again: so they may be kept before the commit.
            for number, app, of, name in await self.rows(
                "SELECT b.id, b.app, a.name, b.name FROM binding b JOIN app a ON a.id = b.app WHERE b.id = ANY ($1::int[])",
                unknown,
            ):
                places[number] = (place_of(of, name), app, of, name)
        return {number: places[number][0] for number in wanted if number in places}

    def keep(self) -> None:
        """The transaction was committed: what was learned in it holds."""
        self._known.apps.update(self._apps)
        self._known.bindings.update(self._bindings)

    async def log(self, now: float, events: Iterable[tuple[int, str, dict[str, Any]]]) -> None:
        """Lines of the event log: (app, kind, data). They get their numbers when they are first read (see `schema`)."""
        await self.many(
            "INSERT INTO event (at, app, kind, data) SELECT $4, * FROM unnest($1::int[], $2::text[], $3::text[])",
            [(app, kind, dumps(data)) for app, kind, data in events],
            now,
        )

    async def audit(self, now: float, app: str, audit: Audit | None) -> None:
        """A line of the audit log, if there is one to write, and an earlier run of the same operation has not written it."""
        if audit is None:
            return
        number = await self.app(app, create=True)
        line = dumps(audit.line(await self.value("SELECT secret FROM feed"), app))
        written = "SELECT EXISTS (SELECT 1 FROM event WHERE app = $1 AND at = $2 AND kind = $3 AND data = $4)"
        if not (self.again and await self.value(written, number, now, audit.kind, line)):
            await self.run(
                "INSERT INTO event (app, at, kind, data) VALUES ($1, $2, $3, $4)", number, now, audit.kind, line
            )
