"""The port: one transaction of a SQL database, as the operations of this package see it.

Texts are SQL that every database of the port understands, with `$1`, `$2`, … for parameters; a difference between them
is a named method, which answers a piece of text. No text is rewritten. A parameter is a number, a text, bytes, None, a
list of such (one number), or `Rows` (as many numbers as a row has columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol

from fanout.core.audit import Audit
from fanout.plugin import Seal, StorageContext
from fanout.storage.sql.hot import Hot

__all__ = ["Again", "Db", "Rows", "column", "made_once", "overwrite"]

P = ParamSpec("P")


class Again(Exception):
    """Raised by an operation whose look was overtaken by another transaction: it is rolled back and run once more."""


class Rows:
    """Many rows as one argument: it takes as many parameter numbers as a row has columns. `Db.given` reads it as a
    table."""

    __slots__ = ("rows", "width")

    def __init__(self, rows: Iterable[Sequence[Any]], width: int) -> None:
        self.rows = list(rows)
        self.width = width

    def columns(self) -> list[Sequence[Any]]:
        """The same, column by column."""
        return list(zip(*self.rows, strict=True)) if self.rows else [()] * self.width


class Db(Protocol):
    """One connection inside one transaction.

    `again` says that an earlier run of the same operation with the same arguments may have been committed and its
    answer lost: an operation that would then do something twice looks first at the rows that it finds. An operation
    that found nothing to do sets `silent`. `hot` are the driver's own statements.
    """

    context: StorageContext
    hot: Hot
    again: bool
    repeats: int
    """How often others have come in between, and the operation was run anew."""
    silent: bool
    alone: bool
    """Whether no other transaction writes between the beginning and the end of a writing transaction: its reads stay
    true."""

    @property
    def skew(self) -> float:
        """Seconds by which the database's clock is ahead of the caller's: added to a caller's time that is compared
        with a stored one of the database's (ends of leases, heartbeats)."""
        ...

    async def read_clock(self) -> None:
        """Ask the database for the time, where it has a clock of its own."""
        ...

    # -- statements

    async def value(self, sql: str, *args: Any) -> Any:
        """The first column of the first row, or None."""
        ...

    async def row(self, sql: str, *args: Any) -> Any:
        """The first row, or None."""
        ...

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        """All rows of a SELECT. A column of bytes stands in `binary`, a list in `listed`."""
        ...

    async def run(self, sql: str, *args: Any) -> int:
        """A statement without an answer; how many rows it changed."""
        ...

    async def many(self, sql: str, rows: Iterable[Sequence[Any]], *args: Any) -> int:
        """`run` with `Rows` for the first argument. Nothing happens without rows."""
        ...

    # -- pieces of text

    def given(self, n: int, /, **columns: str) -> str:
        """The table `j`, made of the argument that begins at `$n`: `Rows`, or a list where there is one column. Types
        are `int`, `bigint`, `smallint`, `float8`, `text`, `boolean`, `bytea`."""
        ...

    def joined(self, n: int, table: str, by: str = "", also: str = "", /, **columns: str) -> str:
        """`given`, as the outer side of a join with `table` ("gate g"), whose rows are looked up by the columns `by`
        (all, in general), and by the condition `also` on the alias ("NOT g.whole AND g.name = j.word"), which an index
        needs."""
        ...

    def keyed(self, column: str, given: str, /) -> str:
        """The condition by which an UPDATE … FROM `given` finds its rows: `column` of the table, by its index, is
        `given` ("j.id")."""
        ...

    def deleting(self, table: str, n: int, /, **columns: str) -> str:
        """The statement that deletes the rows with these keys, `Rows` of which begin at `$n`."""
        ...

    def among(self, n: int, type: str, /) -> str:
        """The SQL that follows a column, to ask whether it is one of a list: `f"id {db.among(1, 'bigint')}"`."""
        ...

    def binary(self, column: str, /) -> str:
        """A column of bytes among the columns of `rows`; `bytes_of` reads it."""
        ...

    def bytes_of(self, value: Any, /) -> bytes:
        """The bytes that `rows` answered for `binary`."""
        ...

    def list_of(self, value: Any, /) -> list[Any]:
        """The list that a column of lists answered."""
        ...

    def lists(self, columns: str, rest: str, /) -> str:
        """The rows of `SELECT columns FROM rest`, as one column: a list of lists, in JSON."""
        ...

    def retries_of(self, notification: str, /) -> str:
        """The table `r` of retry rows, with WHERE and the condition that they are this notification's ("n.id"), by the
        index that finds those that are due before others."""
        ...

    @property
    def is_audit(self) -> str:
        """Whether an event is a line of the audit log, as the index `event_audit` says it."""
        ...

    def each(self, column: str, alias: str, /) -> str:
        """A join, behind the table of `column`, with the elements of that list: `alias.value`."""
        ...

    def listed(self, column: str, rest: str, /) -> str:
        """The different values of a column that `SELECT column FROM rest` finds, as one list, which `one_of` and
        `list_of` read."""
        ...

    def one_of(self, values: str, type: str, /) -> str:
        """The same for a list in the database, such as another column, or a SELECT of one `listed`."""
        ...

    def hexadecimal(self, column: str, /) -> str:
        """A column of bytes as text: two digits for each."""
        ...

    def has(self, column: str, n: int, /) -> str:
        """The condition that `$n` is an element of the list in a column."""
        ...

    def unindexed(self, column: str, /) -> str:
        """A column of a condition by which no index is to be chosen."""
        ...

    def old_events(self, condition: str, before: int, limit: int, /) -> str:
        """The statement that finds `event_key` of the oldest events for which a condition holds, and which are of
        before `$before`, `$limit` at most."""
        ...

    @property
    def event_key(self) -> str:
        """The column by which an event is found before it has its place in the log."""
        ...

    async def traces(self, column: str, rest: str, *args: Any) -> list[bytes]:
        """The values of `SELECT column FROM rest`, a thousand at most, where the bytes of deleted rows may stay in a
        file; elsewhere nothing."""
        ...

    # -- the directory

    def part(self, table: str, number: str, /) -> str:
        """The condition, beginning with AND, that endpoints stand in a part of the directory (`core.shard`), where it
        is divided."""
        ...

    def holder(self, binding: int, digest: int, /, *, former: bool = False) -> str:
        """The table `e` of the active endpoint that has the address of these parameters' numbers; `former`: of the
        inactive ones that had it."""
        ...

    def endpoints(self, n: int, condition: str, columns: str, /) -> str:
        """The statement that finds `columns` of those endpoints `e` of a list, `$n`, for which the condition holds, and
        locks these alone, in the order of the list."""
        ...

    def of_endpoints(self, n: int, /) -> str:
        """A list of numbers, `$n`, as `j`, joined with the endpoints `e` of these numbers."""
        ...

    def tagged(self, rest: str, /) -> str:
        """The condition that `rest`, a table with its own condition on `t.value`, has a row for one of the tags
        `t.value` of `e`."""
        ...

    def count_held(self, n: int, binding: str, /) -> str:
        """How many of the digests of a list, `$n`, active endpoints of the binding have."""
        ...

    def unheld(self, alias: str, /) -> str:
        """The condition that no active endpoint has the address of this one."""
        ...

    async def free_addresses(self, claims: Sequence[tuple[int, bytes, int]]) -> None:
        """These addresses (binding, digest, endpoint) are no longer held by their endpoints."""
        ...

    async def hold_addresses(self, claims: Sequence[tuple[int, bytes, int]]) -> None:
        """These addresses, which no endpoint holds, are held."""
        ...

    async def tag(self, tagged: Sequence[tuple[int, int, Sequence[str]]]) -> None:
        """Put these active endpoints of a user into topics: (id, binding's number, tags), as their rows have them."""
        ...

    async def untag(self, tagged: Sequence[tuple[int, int, Sequence[str]]]) -> None:
        """Take these endpoints out of topics: (id, binding's number, tags), as their rows have them."""
        ...

    async def highest_endpoint(self) -> int:
        """The highest number that an endpoint has, or more."""
        ...

    async def take_turns(self) -> None:
        """An operation that others overtook again and again waits here for those of its kind."""
        ...

    # -- locks

    def hold(self, order: str = "", /, *, free: bool = False, of: str = "") -> str:
        """Behind a SELECT: the rows of its table, of several tables those `of` this alias, are locked until the
        transaction ends, in this order; `free`: without those that another transaction has locked. Begins with a space,
        or is empty, the order too."""
        ...

    def at_places(self, n: int, /) -> str:
        """`Rows` of (app, collapse key, digest of the target, i) as `j`, joined with the unfinished notifications `n`
        there, by the index of these."""
        ...

    async def lock_numbers(self, keys: Sequence[int]) -> None:
        """Until the transaction ends, no other one passes here with one of these numbers of 64 bits, which ascend."""
        ...

    async def exclusive(self, what: str, key: int | str = 0) -> None:
        """Until the transaction ends, no other transaction passes here with the same words."""
        ...

    # -- names, addresses, the log

    async def feed_numbers(self, changes: int, items: int) -> tuple[int, int, Iterable[int]]:
        """The last of so many new numbers of the feed's sequence of changes; the identity of that; and the numbers of
        so many new items. Until the transaction ends, no other one writes to the feed."""
        ...

    async def app(self, name: str, *, create: bool = False) -> int:
        """The number of an app; 0 for an unknown app, unless it is to be created."""
        ...

    async def binding(self, app: int, name: str, *, create: bool = False) -> int:
        """The number of an app's binding; 0 for an unknown binding, unless it is to be created."""
        ...

    async def binding_name(self, number: int) -> str:
        """The name of the binding of that number, which there is."""
        ...

    async def place(self, binding: int) -> bytes:
        """Where the addresses of a binding belong, by its number."""
        ...

    async def own(self, app: str, uuid: str) -> str:
        """The id under which a notification was put, which another program may have entered. Raises `NotFound` while
        that is to come."""
        ...

    async def entered(self, app: str) -> list[Any]:
        """(id, target as JSON) of notifications that other programs have entered and no worker has taken, by id."""
        ...

    async def seal(self) -> Seal | None:
        """The keys that seal addresses; None where they stand in clear. Raises `StorageRefused`."""
        ...

    async def log(self, now: float, events: Iterable[tuple[int, str, dict[str, Any]]]) -> None:
        """Lines of the event log: (app, kind, data)."""
        ...

    async def audit(self, now: float, app: str, audit: Audit | None) -> None:
        """A line of the audit log, if there is one to write."""
        ...


async def column(db: Db, sql: str, *args: Any) -> list[Any]:
    """The first column of all rows of a SELECT."""
    return [row[0] for row in await db.rows(sql, *args)]


def overwrite(*columns: str) -> str:
    """The end of an upsert, behind `ON CONFLICT (…)`: these columns are the new row's."""
    return "DO UPDATE SET " + ", ".join(f"{column} = excluded.{column}" for column in columns)


def made_once(make: Callable[Concatenate[Db, P], str]) -> Callable[Concatenate[Db, P], str]:
    """Keep each text that `make` makes for a kind of database: to put it together takes as long as to run it."""
    made: dict[Any, str] = {}

    @wraps(make)
    def kept(db: Db, /, *args: P.args, **kwargs: P.kwargs) -> str:
        key = (type(db), args)
        text = made.get(key)
        if text is None:
            text = made[key] = make(db, *args, **kwargs)
        return text

    return kept
