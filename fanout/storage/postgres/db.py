"""One transaction as the rest of the package uses it: `$1` and columns in, records out, and the few rows that
everything shares.

A statement over many rows has one possible plan: its array first, then the table, by one index. Else a plan that was
made when a table was empty, or never analysed, reads all of it for each call. So a table stands behind a fence, which
the planner does not take down: `FROM unnest(...) j CROSS JOIN LATERAL (SELECT ... FROM t WHERE key = j.key OFFSET 0) t
WHERE t.state = ...`, with the key alone inside, as other conditions would admit other indexes. The table of an UPDATE
or DELETE cannot stand there: `WHERE t.key = ANY (ARRAY[j.key])` admits the loop from `j` alone, as that is no equality
by which the planner could begin with `t`, in the order of an index. `FOR UPDATE` stands inside the fence, and the array
in the order in which rows are to be locked. `num_nulls(x) = 1` is `x IS NULL`, but for indexes on that condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fanout.core.audit import Audit
from fanout.core.shard import SHARDS
from fanout.errors import NotFound
from fanout.plugin import Seal, StorageContext, place_of
from fanout.storage.carried import CarriedClock
from fanout.storage.packing import dumps, pack, unpack
from fanout.storage.postgres.floors import Floors
from fanout.storage.postgres.naming import Used
from fanout.storage.postgres.pieces import Pieces
from fanout.storage.sealing import Seals
from fanout.storage.sql.db import Rows
from fanout.storage.sql.hot import Hot

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["BINDING_LOCK", "CLOCK", "COPY_FROM", "Db", "Known", "dumps", "pack", "unpack"]

CLOCK = "extract(epoch FROM clock_timestamp())::float8"
"""The database's UNIX seconds at the moment, not at the beginning of the transaction."""

BINDING_LOCK = 0x46414E42
"""The first key of the advisory locks of bindings; the second is the binding's number. Leases share it (`leasing`)."""
_LOCK = 1178685007
"""`FANO` in ASCII: the first key of locks of which there is one each."""
_LOCKS = {"events": 2, "gates": 3, "feed": 4}
_NAME_LOCK = _LOCK + 1
"""The first key of the locks of names; the second is a hash of the name."""

_TURNS = 0x46414E4F_45503031
"""A key of its own among the advisory locks of the database."""
_BINDING = "SELECT id FROM binding WHERE app = $1 AND name = $2"
COPY_FROM = 50
"""Rows from which on COPY, which takes two more round trips, is preferred to INSERT."""


class Known:
    """The facts that one pool has learned of its database for good: apps' and bindings' numbers, and how far the clocks
    are apart."""

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
        """The memory for another database: nothing is known yet. The clock object stays, for others hold it, and
        follows that database's clock from its first reading."""
        made = self._make()
        made.clock, made.skew = self.clock, self.skew
        made.clock.forget()
        return made


@dataclass(slots=True, eq=False)
class Db(Pieces):
    """One connection inside one transaction; or, for a read of one statement, without one.

    `again` says that an earlier run of the same operation with the same arguments may have been committed: its
    connection was lost after COMMIT had been sent, and the answer was lost. An operation that would then answer
    wrongly, or do something twice, looks first at the rows that it finds. An operation that found nothing to do says so
    by `silent`: then no process is told of a change. `carried`: callers' times are the database's own, from
    `PostgresStorage.clock`. `repeats` counts how often others have come in between, and the operation was run anew.
    """

    connection: Connection
    context: StorageContext
    _known: Known
    hot: Hot
    again: bool = False
    believed: bool = True
    carried: bool = False
    repeats: int = 0
    silent: bool = False
    used: Used = field(default_factory=Used)
    _apps: dict[str, int] = field(default_factory=dict)
    _bindings: dict[tuple[int, str], int] = field(default_factory=dict)
    _seal: tuple[Seal | None] | None = None
    alone: bool = False

    async def value(self, sql: str, *args: Any) -> Any:
        """The first column of the first row, or None."""
        return await self.connection.fetchval(sql, *_spread(args))

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        """All rows of a statement, as asyncpg's records: by position, by name, and to be taken apart."""
        found: list[Any] = await self.connection.fetch(sql, *_spread(args))
        return found

    async def row(self, sql: str, *args: Any) -> Any:
        """The first row, or None."""
        return await self.connection.fetchrow(sql, *_spread(args))

    async def run(self, sql: str, *args: Any) -> int:
        """A statement without an answer; how many rows it changed, where it has arguments."""
        if args:
            return _changed(await self.connection.execute(sql, *_spread(args)))
        # Without arguments asyncpg would send the text to be parsed anew each time.
        await self.connection.fetch(sql)
        return 0

    async def many(self, sql: str, rows: Iterable[Sequence[Any]], *args: Any) -> int:
        """A statement over many rows, which reads their columns from `unnest($1::…[], $2::…[], …)`, and `args` follow
        those.

        Nothing happens without rows. An array cannot be a value in such a row: it would be flattened. How many rows it
        changed.
        """
        columns = list(zip(*rows, strict=True))
        return _changed(await self.connection.execute(sql, *columns, *args)) if columns else 0

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[Any]]) -> None:
        """Rows into a table by COPY: for hundreds and more, of which none may conflict."""
        await self.connection.copy_records_to_table(table, records=records, columns=columns)

    async def exclusive(self, what: str, key: int | str = 0) -> None:
        """An advisory lock; for sealing, a lock of the table that every session reads beforehand."""
        if what == "seal":
            await self.run("LOCK TABLE seal IN ACCESS EXCLUSIVE MODE")
        elif what == "binding":
            await self.value("SELECT pg_advisory_xact_lock($1, $2)", BINDING_LOCK, key)
        elif isinstance(key, str):
            await self.value("SELECT pg_advisory_xact_lock($1, hashtext($2))", _NAME_LOCK, key)
        else:
            await self.value("SELECT pg_advisory_xact_lock($1, $2)", _LOCK, _LOCKS[what])

    async def free_addresses(self, claims: Sequence[tuple[int, bytes, int]]) -> None:
        """Rows of `address`."""
        await self.many(
            "DELETE FROM address a USING unnest($1::int[], $2::bytea[], $3::bigint[]) j (binding, digest, id) "
            "WHERE a.digest = ANY (ARRAY[j.digest]) AND a.binding = j.binding AND a.endpoint = j.id",
            claims,
        )

    async def hold_addresses(self, claims: Sequence[tuple[int, bytes, int]]) -> None:
        """Rows of `address`. Another transaction may be registering one of them: its key then has this one run
        again."""
        await self.many(
            "INSERT INTO address (binding, digest, endpoint) SELECT * FROM unnest($1::int[], $2::bytea[], $3::bigint[])",
            claims,
        )

    async def tag(self, tagged: Iterable[tuple[int, int, Sequence[str]]]) -> None:
        """Their shards stand beside them."""
        tagged = [each for each in tagged if each[2]]
        # Not as a list where they are many: the cycle collector would look at tens of thousands of tuples again and
        # again.
        rows = ((id, binding, id & (SHARDS - 1), name) for id, binding, tags in tagged for name in tags)
        if len(tagged) >= COPY_FROM:
            await self.copy("endpoint_tag", ("endpoint", "binding", "shard", "tag"), rows)
        else:
            await self.many(
                "INSERT INTO endpoint_tag (endpoint, binding, shard, tag) "
                "SELECT * FROM unnest($1::bigint[], $2::int[], $3::smallint[], $4::text[])",
                rows,
            )

    async def untag(self, tagged: Iterable[tuple[int, int, Sequence[str]]]) -> None:
        """One partition for each."""
        await self.many(
            "DELETE FROM endpoint_tag d USING unnest($1::bigint[], $2::int[], $3::text[]) j (id, binding, tag) "
            "WHERE d.binding = ANY (ARRAY[j.binding]) AND d.tag = j.tag AND d.endpoint = j.id AND d.shard = (j.id & 15)::smallint",
            [(id, binding, tag) for id, binding, tags in tagged for tag in tags],
        )

    async def highest_endpoint(self) -> int:
        """An endpoint's number is one of a sequence times the number of shards, plus its shard."""
        return (int(await self.value("SELECT last_value FROM endpoint_number")) + 1) * SHARDS - 1

    async def take_turns(self) -> None:
        """From the third run on, so that each gets through when many want the same addresses."""
        if self.repeats > 1:
            await self.value("SELECT pg_advisory_xact_lock($1)", _TURNS)

    async def lock_numbers(self, keys: Sequence[int]) -> None:
        """Advisory locks of the database."""
        await self.run(
            "SELECT pg_advisory_xact_lock(k) FROM (SELECT k FROM unnest($1::bigint[]) k ORDER BY k) ordered", keys
        )

    async def own(self, app: str, uuid: str) -> str:
        """The inbox may hold it, or know another id for it."""
        row = await self.row(
            "SELECT NULL AS became, true AS waits FROM inbox WHERE uuid = $1 AND app = $2 "
            "UNION ALL SELECT became, false FROM enqueued WHERE uuid = $1 AND app = $2",
            uuid,
            app,
        )
        if row is not None and row["waits"]:
            raise NotFound(
                f"The notification {uuid} is enqueued, and no worker has taken it yet: repeat this in a moment, or cancel it."
            )
        return uuid if row is None or row["became"] is None else str(row["became"])

    async def traces(self, column: str, rest: str, *args: Any) -> list[bytes]:
        """Dead rows are the business of vacuum."""
        return []

    async def entered(self, app: str) -> list[Any]:
        """The rows of the inbox."""
        return await self.rows(
            "SELECT uuid, (envelope::jsonb->'target')::text AS target FROM inbox WHERE app = $1 ORDER BY uuid", app
        )

    @property
    def floors(self) -> Floors:
        """From where on due chunks are looked for."""
        return self._known.floors

    # -- time

    @property
    def skew(self) -> float:
        """Seconds by which the database's clock is ahead of the caller's. 0 where the caller's times are `believed`, as
        those are that an engine takes from `PostgresStorage.clock`."""
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
        """A statement just read the database's clock, for a caller that has a clock of its own."""
        if not self.believed:
            self._known.skew = database_now - self.context.clock.now()

    # -- names

    async def feed_numbers(self, changes: int, items: int) -> tuple[int, int, Iterable[int]]:
        """See `storage.sql.db`. In one statement: other writers to the feed wait for this one."""
        row = await self.row(
            "WITH f AS (UPDATE feed SET seq = seq + $1 WHERE id = 1 RETURNING seq, identity) SELECT seq, identity, "
            "ARRAY(SELECT nextval('feed_item_id_seq') FROM generate_series(1, $2::int)) FROM f",
            changes,
            items,
        )
        return row[0], row[1], row[2]

    async def app(self, name: str, *, create: bool = False) -> int:
        """The number of an app; 0 for one that nothing is known of, unless it is to be created."""
        number = self._known.apps.get(name)
        if number is not None:
            self.used.app(number, name)
            return number
        number = self._apps.get(name) or await self.value("SELECT id FROM app WHERE name = $1", name)
        if number is None:
            if not create:
                return 0
            await self.run("INSERT INTO app (name) VALUES ($1) ON CONFLICT DO NOTHING", name)
            return await self.app(name)
        self._apps[name] = number
        return number

    async def binding(self, app: int, name: str, *, create: bool = False) -> int:
        """The number of an app's binding; 0 for one that nothing is known of, unless it is to be created."""
        number = self._known.bindings.get((app, name))
        if number is not None:
            self.used.binding(number, name, app)
            return number
        number = self._bindings.get((app, name)) or await self.value(_BINDING, app, name)
        if number is None:
            if not create:
                return 0
            await self.run("INSERT INTO binding (app, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", app, name)
            return await self.binding(app, name)
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
        """The keys that seal addresses, until the end of this transaction; None where they stand in clear. Raises
        `StorageRefused`."""
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

    async def place(self, binding: int) -> bytes:
        """Where the addresses of a binding belong, by its number."""
        return (await self.places([binding]))[binding]

    def keep(self) -> None:
        """The transaction was committed: its cached numbers hold."""
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
        """A line of the audit log, if there is one to write, and an earlier run of the same operation has not written
        it."""
        if audit is None:
            return
        number = await self.app(app, create=True)
        line = dumps(audit.line(await self.value("SELECT secret FROM feed"), app))
        written = "SELECT EXISTS (SELECT 1 FROM event WHERE app = $1 AND at = $2 AND kind = $3 AND data = $4)"
        if not (self.again and await self.value(written, number, now, audit.kind, line)):
            await self.run(
                "INSERT INTO event (app, at, kind, data) VALUES ($1, $2, $3, $4)", number, now, audit.kind, line
            )


def _spread(args: tuple[Any, ...]) -> Iterable[Any]:
    """`Rows` as the columns that they are."""
    if not any(isinstance(value, Rows) for value in args):
        return args
    return [each for value in args for each in (value.columns() if isinstance(value, Rows) else (value,))]


def _changed(tag: str) -> int:
    """Of a command tag, such as ``UPDATE 3``."""
    number = tag.rpartition(" ")[2]
    return int(number) if number.isdecimal() else 0
