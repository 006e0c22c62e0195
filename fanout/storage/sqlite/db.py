"""The connection as the rest of the package uses it: JSON in, JSON out, and the few rows that everything shares."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import orjson

from fanout.core.audit import Audit
from fanout.plugin import Seal, StorageContext, place_of
from fanout.storage import packing
from fanout.storage.packing import dumps, unfit
from fanout.storage.sealing import Seals
from fanout.storage.sql.hot import Hot

__all__ = ["Db", "as_json", "dumps", "unpack"]

_BINDING = "SELECT id FROM binding WHERE app = ? AND name = ?"


class Db:
    """One connection, used by one thread at a time.

    `rows` and `one` step over a single row, whose only column is JSON made by SQLite: stepping row by row would hand
    over the interpreter lock once per row.
    """

    __slots__ = ("_apps", "_bindings", "_places", "_seals", "connection", "context", "hot", "texts")

    def __init__(self, connection: apsw.Connection, context: StorageContext, hot: Hot | None = None) -> None:
        self.connection = connection
        self.context = context
        self.hot = hot
        self._apps: dict[str, int] = {}
        self._bindings: dict[tuple[int, str], int] = {}
        self._places: dict[int, bytes] = {}
        self.texts: dict[str, str] = {}
        """Texts of `storage.sql` as they are run: see `session.Session.rows`."""
        self._seals = Seals(context.sealer, connection.filename)

    def json(self, sql: str, *arguments: Any) -> Any:
        """The first column of the first row, decoded from JSON; None where there is no row or a NULL."""
        value = self.value(sql, *arguments)
        return None if value is None else orjson.loads(value)

    def rows(self, columns: str, rest: str, *arguments: Any) -> list[list[Any]]:
        """The rows of `SELECT columns FROM (rest)`, as lists. The columns must be values that JSON can hold."""
        value = self.value(f"SELECT json_group_array(json_array({columns})) FROM {rest}", *arguments)
        found: list[list[Any]] = orjson.loads(value)
        return found

    def columns(self, columns: Sequence[str], rest: str, *arguments: Any) -> list[list[Any]]:
        """`rows` the other way round, one list per column: a fifth faster, where there are thousands of rows."""
        made = ", ".join(f"json_group_array({column})" for column in columns)
        for row in self.connection.execute(f"SELECT {made} FROM {rest}", arguments):
            return [orjson.loads(column) for column in row]
        raise AssertionError("an aggregate always has a row")

    def pairs(self, columns: str, rest: str, *arguments: Any) -> dict[Any, Any]:
        """`rows` of two columns, as a dictionary."""
        return {row[0]: row[1] for row in self.rows(columns, rest, *arguments)}

    def value(self, sql: str, *arguments: Any) -> Any:
        """The first column of the first row, or None."""
        try:
            for row in self.connection.execute(sql, arguments):
                return row[0]
        except (OverflowError, UnicodeEncodeError):
            raise unfit() from None
        return None

    def run(self, sql: str, *arguments: Any) -> None:
        """A statement without an answer."""
        self.value(sql, *arguments)

    def many(self, sql: str, rows: Iterable[Sequence[Any]], *arguments: Any) -> None:
        """A statement that takes its rows from `json_each(?1)`; nothing happens without rows."""
        rows = list(rows)
        if rows:
            self.connection.execute(sql, (as_json(rows), *arguments))

    # -- names

    def app(self, name: str, *, create: bool = False) -> int:
        """The number of an app; 0 for an unknown app, unless it is to be created."""
        number = self._apps.get(name) or self.value("SELECT id FROM app WHERE name = ?", name)
        if number is None:
            if not create:
                return 0
            self.run("INSERT INTO app (name) VALUES (?)", name)
            number = self.connection.last_insert_rowid()
        self._apps[name] = number
        return number

    def binding(self, app: int, name: str, *, create: bool = False) -> int:
        """The number of an app's binding; 0 for an unknown binding, unless it is to be created."""
        number = self._bindings.get((app, name)) or self.value(_BINDING, app, name)
        if number is None:
            if not create:
                return 0
            self.run("INSERT INTO binding (app, name) VALUES (?, ?)", app, name)
            number = self.connection.last_insert_rowid()
        self._bindings[app, name] = number
        return number

    def place(self, binding: int) -> bytes:
        """Where the addresses of a binding belong, by its number."""
        place = self._places.get(binding)
        if place is None:
            names = self.rows("a.name, b.name", "binding b JOIN app a ON a.id = b.app WHERE b.id = ?", binding)
            place = self._places[binding] = place_of(*names[0])
        return place

    def seal(self) -> Seal | None:
        """The keys that seal addresses, as of this transaction; None where they stand in clear. Raises
        `StorageRefused`."""
        return self._seals.of(self.value("SELECT record FROM seal"))

    def paused(self, binding: int) -> bool:
        """Whether this binding is paused."""
        return bool(self.value("SELECT paused FROM control WHERE binding = ?", binding))

    def forget(self) -> None:
        """A transaction was rolled back: cached facts of it may be untrue."""
        self._apps.clear()
        self._bindings.clear()
        self._places.clear()

    def next_id(self, table: str) -> int:
        """The first unused number of a table whose numbers are never used again."""
        last = self.value("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return 1 if last is None else last + 1

    def log(self, now: float, events: Iterable[tuple[int, str, dict[str, Any]]]) -> None:
        """Lines of the event log: (app, kind, data)."""
        self.many(
            "INSERT INTO event (at, app, kind, data) "
            "SELECT value->>0, value->>1, value->>2, value->>3 FROM jsonb_each(?)",
            ((now, app, kind, data) for app, kind, data in events),
        )

    def audit(self, now: float, app: str, audit: Audit | None) -> None:
        """A line of the audit log, if there is one to write."""
        if audit is not None:
            line = audit.line(self.value("SELECT secret FROM feed"), app)
            self.log(now, [(self.app(app, create=True), audit.kind, line)])


def as_json(value: Any) -> str:
    """A list for `json_each`, with bytes as hexadecimal text. Raises `ContentRefused` for a value that no JSON text can
    hold."""
    try:
        return orjson.dumps(value, default=_hexadecimal).decode()
    except TypeError:
        raise unfit() from None


def _hexadecimal(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value.hex()
    raise TypeError


def unpack(text: str) -> array[int]:
    """The ids that `packing.pack` packed, from hexadecimal text."""
    return packing.unpack(bytes.fromhex(text))
