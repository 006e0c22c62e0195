"""The port of `storage.sql` on this connection: operations that are `async def` and never suspend, each run by one
`send`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import apsw
import orjson

from fanout.core.audit import Audit
from fanout.plugin import Seal
from fanout.storage.packing import unfit
from fanout.storage.sql.db import Rows
from fanout.storage.sql.hot import Hot
from fanout.storage.sqlite.db import Db, as_json
from fanout.storage.sqlite.topics import tag, untag

__all__ = ["Session", "as_operation", "finished", "shared"]

T = TypeVar("T")


def finished(operation: Awaitable[T]) -> T:
    """The answer of a coroutine that never suspends. Raises `RuntimeError` for one that does."""
    steps: Any = operation
    try:
        steps.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    steps.close()
    raise RuntimeError("An operation on SQLite has suspended: it awaits something that is not the database.")


def shared(db: Db, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run an operation of `storage.sql` inside a transaction of this connection."""
    return finished(operation(Session(db), *arguments))


def as_operation(function: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """A function of this connection, to be handed to an operation of `storage.sql`."""

    async def operation(session: Session, *arguments: Any) -> T:
        return function(session.native, *arguments)

    return operation


class Session:
    """`storage.sql.db.Db` over a connection. Parameters are bound by name: SQLite takes `$1` for one."""

    __slots__ = ("context", "hot", "native", "silent")

    hot: Hot

    again = False
    repeats = 0
    alone = True
    skew = 0.0

    def __init__(self, db: Db) -> None:
        self.native = db
        self.context = db.context
        if db.hot is not None:
            self.hot = db.hot
        self.silent = False

    async def read_clock(self) -> None:
        """See `Db`. SQLite has no other clock than the caller's."""

    # -- statements

    async def value(self, sql: str, *args: Any) -> Any:
        """See `Db`."""
        for row in self._execute(sql, args):
            return row[0]
        return None

    async def row(self, sql: str, *args: Any) -> Any:
        """See `Db`."""
        for row in self._execute(sql, args):
            return row
        return None

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        """See `Db`. They leave SQLite in one step, as JSON: stepping row by row would hand over the interpreter lock
        once per row."""
        text = self.native.texts.get(sql)
        if text is None:
            text = self.native.texts[sql] = self._gathered(sql, args)
        for (found,) in self._execute(text, args):
            rows: list[Any] = orjson.loads(found)
            return rows
        raise AssertionError("an aggregate always has a row")

    def _gathered(self, sql: str, args: tuple[Any, ...]) -> str:
        columns = 0

        def look(cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
            nonlocal columns
            columns = len(cursor.get_description())
            return False

        # As `apsw.ext.query_info` does it, whose module takes some 10 ms to import.
        cursor = self.native.connection.cursor()
        cursor.exec_trace = look
        with suppress(apsw.ExecTraceAbort):
            cursor.execute(sql, _bound(args) if args else None)
        cursor.close()
        names = ", ".join(f"c{i}" for i in range(columns))
        return f"WITH found ({names}) AS ({sql}) SELECT json_group_array(json_array({names})) FROM found"

    async def run(self, sql: str, *args: Any) -> int:
        """See `Db`."""
        self._execute(sql, args)
        return self.native.connection.changes()

    async def many(self, sql: str, rows: Iterable[Sequence[Any]], *args: Any) -> int:
        """See `Db`."""
        rows = list(rows)
        return await self.run(sql, Rows(rows, len(rows[0])), *args) if rows else 0

    def _execute(self, sql: str, args: tuple[Any, ...]) -> apsw.Cursor:
        try:
            return self.native.connection.execute(sql, _bound(args) if args else None)
        except (OverflowError, UnicodeEncodeError):
            raise unfit() from None

    # -- pieces of text

    given = staticmethod(cache(lambda n, /, **columns: _given(n, columns)))

    def joined(self, n: int, table: str, by: str = "", also: str = "", /, **columns: str) -> str:
        """See `Db`. CROSS JOIN keeps the order."""
        alias = table.split()[-1]
        keys = by.split(", ") if by else columns
        found = " AND ".join([*(f"{alias}.{key} = j.{key}" for key in keys), *filter(None, [also])])
        return f"{_given(n, columns)} CROSS JOIN {table} ON {found}"

    def keyed(self, column: str, given: str, /) -> str:
        """See `Db`."""
        return f"{column} = {given}"

    def deleting(self, table: str, n: int, /, **columns: str) -> str:
        """See `Db`."""
        names = ", ".join(columns)
        return f"DELETE FROM {table} WHERE ({names}) IN (SELECT {names} FROM {_given(n, columns)})"

    def among(self, n: int, type: str, /) -> str:
        """See `Db`."""
        value = "unhex(value)" if type == "bytea" else "value"
        return f"IN (SELECT {value} FROM json_each(${n}))"

    def binary(self, column: str, /) -> str:
        """See `Db`. JSON holds no bytes."""
        return f"hex({column})"

    def bytes_of(self, value: Any, /) -> bytes:
        """See `Db`."""
        return bytes.fromhex(value)

    def list_of(self, value: Any, /) -> list[Any]:
        """See `Db`."""
        found: list[Any] = orjson.loads(value)
        return found

    def lists(self, columns: str, rest: str, /) -> str:
        """See `Db`."""
        return f"(SELECT json_group_array(json_array({columns})) FROM {rest})"

    def retries_of(self, notification: str, /) -> str:
        """See `Db`. The primary key would go through all of the notification's rows."""
        return (
            "retry r INDEXED BY retry_due WHERE r.binding IN "
            f"(SELECT binding FROM backlog WHERE notification = {notification}) AND r.notification = {notification}"
        )

    def old_events(self, condition: str, before: int, limit: int, /) -> str:
        """See `Db`. They are as old as their numbers say."""
        return f"SELECT id FROM (SELECT id, at FROM event WHERE {condition} ORDER BY id LIMIT ${limit}) WHERE at < ${before}"

    event_key = "id"
    is_audit = "substr(kind, 1, 6) = 'audit.'"

    def each(self, column: str, alias: str, /) -> str:
        """See `Db`."""
        return f"CROSS JOIN json_each({column}) {alias}"

    def listed(self, column: str, rest: str, /) -> str:
        """See `Db`."""
        return f"(SELECT json_group_array(DISTINCT {column}) FROM {rest})"

    def one_of(self, values: str, type: str, /) -> str:
        """See `Db`."""
        return f"IN (SELECT value FROM json_each(({values})))"

    def hexadecimal(self, column: str, /) -> str:
        """See `Db`."""
        return f"hex({column})"

    def has(self, column: str, n: int, /) -> str:
        """See `Db`."""
        return f"EXISTS (SELECT 1 FROM json_each({column}) t WHERE t.value = ${n})"

    def unindexed(self, column: str, /) -> str:
        """See `Db`."""
        return f"+{column}"

    # -- the directory: an index of active endpoints says which address is held

    def part(self, table: str, number: str, /) -> str:
        """See `Db`. It is not divided."""
        return ""

    def holder(self, binding: int, digest: int, /, *, former: bool = False) -> str:
        """See `Db`."""
        state = "<>" if former else "="
        return (
            f"(SELECT * FROM endpoint WHERE binding = ${binding} AND digest = ${digest} AND state {state} 'active') e"
        )

    def endpoints(self, n: int, condition: str, columns: str, /) -> str:
        """See `Db`."""
        return f"SELECT {columns} FROM {self.of_endpoints(n)} WHERE {condition}"

    def of_endpoints(self, n: int, /) -> str:
        """See `Db`."""
        return f"{_given(n, {'id': 'bigint'})} CROSS JOIN endpoint e ON e.id = j.id"

    def tagged(self, rest: str, /) -> str:
        """See `Db`."""
        return f"EXISTS (SELECT 1 FROM json_each(e.tags) t CROSS JOIN {rest})"

    def count_held(self, n: int, binding: str, /) -> str:
        """See `Db`."""
        which = f"e.binding = {binding} AND e.state = 'active' AND e.digest {self.among(n, 'bytea')}"
        return f"(SELECT count(*) FROM endpoint e WHERE {which})"

    def unheld(self, alias: str, /) -> str:
        """See `Db`."""
        taken = f"h.binding = {alias}.binding AND h.digest = {alias}.digest AND h.state = 'active'"
        return f"NOT EXISTS (SELECT 1 FROM endpoint h WHERE {taken})"

    async def free_addresses(self, claims: Sequence[tuple[int, bytes, int]]) -> None:
        """See `Db`."""

    async def hold_addresses(self, claims: Sequence[tuple[int, bytes, int]]) -> None:
        """See `Db`."""

    async def tag(self, tagged: Sequence[tuple[int, int, Sequence[str]]]) -> None:
        """See `Db`."""
        tag(self.native, [id for id, _, _ in tagged])

    async def untag(self, tagged: Sequence[tuple[int, int, Sequence[str]]]) -> None:
        """See `Db`."""
        untag(self.native, [id for id, _, _ in tagged])

    async def highest_endpoint(self) -> int:
        """See `Db`."""
        return self.native.next_id("endpoint") - 1

    async def take_turns(self) -> None:
        """See `Db`."""

    # -- locks: a transaction that writes has the database to itself

    def hold(self, order: str = "", /, *, free: bool = False, of: str = "") -> str:
        """See `Db`."""
        return ""

    def at_places(self, n: int, /) -> str:
        """See `Db`."""
        given = _given(n, {"app": "int", "key": "text", "target": "bytea", "i": "int"})
        same = "n.app = j.app AND n.collapse_key = j.key AND n.target_key = j.target"
        return f"{given} CROSS JOIN notification n ON {same} AND n.collapse_key IS NOT NULL AND n.finished_at IS NULL"

    async def lock_numbers(self, keys: Sequence[int]) -> None:
        """See `Db`."""

    async def exclusive(self, what: str, key: int | str = 0) -> None:
        """See `Db`."""

    # -- names, addresses, the log

    async def feed_numbers(self, changes: int, items: int) -> tuple[int, int, Iterable[int]]:
        """See `Db`."""
        seq, identity = await self.row("UPDATE feed SET seq = seq + $1 RETURNING seq, identity", changes)
        first = self.native.next_id("feed_item")
        return seq, identity, range(first, first + items)

    async def app(self, name: str, *, create: bool = False) -> int:
        """See `Db`."""
        return self.native.app(name, create=create)

    async def binding(self, app: int, name: str, *, create: bool = False) -> int:
        """See `Db`."""
        return self.native.binding(app, name, create=create)

    async def binding_name(self, number: int) -> str:
        """See `Db`."""
        name: str = self.native.value("SELECT name FROM binding WHERE id = ?", number)
        return name

    async def place(self, binding: int) -> bytes:
        """See `Db`."""
        return self.native.place(binding)

    async def own(self, app: str, uuid: str) -> str:
        """See `Db`. No other program enters notifications."""
        return uuid

    async def traces(self, column: str, rest: str, *args: Any) -> list[bytes]:
        """See `Db`."""
        found = await self.rows(f"SELECT {self.binary(f'CAST({column} AS BLOB)')} FROM {rest} LIMIT 1000", *args)
        return [self.bytes_of(text) for (text,) in found]

    async def entered(self, app: str) -> list[Any]:
        """See `Db`."""
        return []

    async def seal(self) -> Seal | None:
        """See `Db`."""
        return self.native.seal()

    async def log(self, now: float, events: Iterable[tuple[int, str, dict[str, Any]]]) -> None:
        """See `Db`."""
        self.native.log(now, events)

    async def audit(self, now: float, app: str, audit: Audit | None) -> None:
        """See `Db`."""
        self.native.audit(now, app, audit)


def _given(n: int, columns: dict[str, str]) -> str:
    if len(columns) == 1:  # a list of values, and not of rows
        ((name, type),) = columns.items()
        return f"(SELECT {'unhex(value)' if type == 'bytea' else 'value'} AS {name} FROM json_each(${n})) j"
    made = (
        f"unhex(value->>{i}) AS {name}" if type == "bytea" else f"value->>{i} AS {name}"
        for i, (name, type) in enumerate(columns.items())
    )
    return f"(SELECT {', '.join(made)} FROM json_each(${n})) j"


_NUMBERS = tuple(str(number) for number in range(1, 100))
_MANY = (list, tuple, Rows)


def _bound(args: tuple[Any, ...]) -> dict[str, Any]:
    for value in args:
        if value.__class__ in _MANY:
            break
    else:
        return dict(zip(_NUMBERS, args))  # noqa: B905 - there are more numbers than arguments
    bound: dict[str, Any] = {}
    number = 1
    for value in args:
        if isinstance(value, Rows):
            if value.width == 1:
                bound[str(number)] = as_json([row[0] for row in value.rows])
            else:
                bound[str(number)] = as_json(value.rows)
            number += value.width
            continue
        bound[str(number)] = as_json(value) if isinstance(value, (list, tuple)) else value
        number += 1
    return bound
