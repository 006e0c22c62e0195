"""No statement of the SQLite storage reads a whole table, or is compiled twice: each plan is looked at, as SQLite would
run it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from fanout.storage.sqlite import operations
from fanout.storage.sqlite.opening import connect
from fanout.storage.sqlite.store import Inline
from fanout.testing.storage import Maker, check_storage

pytestmark = pytest.mark.anyio

LARGE = ("endpoint", "endpoint_tag", "notification", "chunk", "audience", "retry", "tally", "idempotency", "decision")
LARGE += ("feed_item", "feed_state", "subscription")
WHOLE = (
    # Reads the first entry of an index that holds the inactive ones alone.
    "SELECT 1 FROM endpoint WHERE state <> 'active' LIMIT 1",
    # Reads the first entry of an index of the few that hold others.
    "SELECT 1 FROM retry WHERE holds LIMIT 1",
    # Asked when a database is drained or looked at, not while it works: what is open is what is counted.
    "sum(open) AS n FROM chunk",
)


async def _statements(makers: Callable[..., tuple[Maker, Maker]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the storage runs while it is put through its contract."""
    seen: dict[str, None] = {}

    def traced(location: str, *, create: bool = True) -> apsw.Connection:
        connection = connect(location, create=create)

        def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
            seen[sql] = None
            return True

        connection.exec_trace = trace
        return connection

    monkeypatch.setattr(operations, "connect", traced)
    await check_storage(*makers(Inline))
    statements = [sql for sql in seen if sql.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")]
    assert len(statements) > 60
    return statements


async def test_no_statement_scans_a_table_or_is_compiled_anew_for_other_values(
    tmp_path: Path, makers: Callable[..., tuple[Maker, Maker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = await _statements(makers, monkeypatch)

    connection = connect(str(tmp_path / "0.db"))
    try:
        bad = [
            f"{detail}: {' '.join(sql.split())}"
            for sql in statements
            if not any(part in sql for part in WHOLE)
            for detail in _scans(connection, sql)
        ]
        anew = _compiled_anew(connection, [sql for sql in statements if sql.startswith(("SELECT", "WITH"))])
    finally:
        connection.close()
    assert not bad, "\n".join(bad)
    assert not anew, "\n".join(anew)


def _compiled_anew(connection: apsw.Connection, queries: list[str]) -> list[str]:
    """The queries that are compiled again when other values are bound."""
    compiled: list[int] = []

    def authorize(operation: int, *_: object) -> int:
        compiled.append(operation)  # asked while a statement is compiled, and at no other time
        return apsw.SQLITE_OK

    connection.authorizer = authorize
    anew = []
    for sql in queries:
        connection.execute(sql, _bound(sql, 0)).fetchall()
        assert compiled, "the first time"
        compiled.clear()
        connection.execute(sql, _bound(sql, 1)).fetchall()
        if compiled:
            anew.append(" ".join(sql.split()))
        compiled.clear()
    return anew


def _bound(sql: str, value: Any) -> Any:
    """As many of it as the statement takes, by name where its parameters have names."""
    names = set(re.findall(r"\$(\d+)", sql))
    if names:
        return dict.fromkeys(names, value)
    last = 0
    for number in re.findall(r"\?(\d*)", sql):
        last = max(last, int(number)) if number else last + 1
    return (value,) * last


def _scans(connection: apsw.Connection, sql: str) -> list[str]:
    """The steps of the plan that go through a large table from end to end."""
    names = {alias: table for table in LARGE for alias in _aliases(sql, table)}
    details = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", _bound(sql, None))]
    scans = [detail for detail in details if detail.startswith("SCAN ") and detail.split()[1] in names]
    # A page of the feed is merged from pages of what is one's own and everybody's, each read from an index up to its
    # limit.
    merged = "feed_" in sql or "subscription" in sql
    return scans + [detail for detail in details if "TEMP B-TREE FOR ORDER BY" in detail and not merged]


def _aliases(sql: str, table: str) -> set[str]:
    """What the statement calls the table: its name, or the single letter after it."""
    words = sql.replace("(", " ( ").replace(")", " ) ").split()
    found = set()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == table:
            found.add(following if len(following) == 1 and following.isalpha() else table)
    return found
