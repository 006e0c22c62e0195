"""The port of `storage.sql` on SQLite: one `send` runs an operation, and what an operation hands in and gets back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import apsw
import pytest

from fanout.errors import ContentRefused
from fanout.plugin import StorageContext
from fanout.storage.sql.db import Rows, overwrite
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.session import Session, finished, shared
from fanout.testing.clock import VirtualClock


@pytest.fixture
def db() -> Iterator[Db]:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, raw BLOB, at REAL)")
    yield Db(connection, StorageContext(clock=VirtualClock(0.0)))
    connection.close()


def test_an_operation_that_suspends_is_an_error(db: Db) -> None:
    closed = []

    async def suspends(db: Session) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match="suspended"):
        shared(db, suspends)
    assert closed == [True]


def test_an_operation_answers_and_raises_as_it_is(db: Db) -> None:
    async def fails(db: Session) -> None:
        raise KeyError("as it is")

    assert shared(db, Session.value, "SELECT $1 + $2", 1, 2) == 3
    with pytest.raises(KeyError, match="as it is"):
        shared(db, fails)


def test_rows_in_and_out(db: Db) -> None:
    session = Session(db)
    columns = {"id": "bigint", "name": "text", "raw": "bytea", "at": "float8"}
    insert = (
        f"INSERT INTO t (id, name, raw, at) SELECT id, name, raw, at FROM {session.given(1, **columns)} WHERE true "
        f"ON CONFLICT (id) {overwrite('name', 'raw', 'at')}"
    )
    assert finished(session.many(insert, [])) == 0
    assert finished(session.many(insert, [(1, "a", b"\x00\xff", 1.5), (2, "b", b"", None)])) == 2
    assert finished(session.many(insert, [(2, "z", b"\x01", 2.0)])) == 1
    read = f"SELECT id, name, {session.binary('raw')}, at FROM t ORDER BY id DESC"
    rows: list[Any] = finished(session.rows(read))
    assert [(*row[:2], session.bytes_of(row[2]), row[3]) for row in rows] == [
        (2, "z", b"\x01", 2.0),
        (1, "a", b"\x00\xff", 1.5),
    ]
    assert finished(session.row("SELECT raw, at FROM t WHERE name = $1", "a")) == (b"\x00\xff", 1.5)
    assert finished(session.row("SELECT raw FROM t WHERE name = $1", "none")) is None
    assert finished(session.value("SELECT raw FROM t WHERE name = $1", "none")) is None


def test_lists_and_what_stands_behind_them(db: Db) -> None:
    session = Session(db)
    finished(session.many("INSERT INTO t (id, name) SELECT id, name FROM " + session.given(1, id="int", name="text"),
        [(i, f"n{i}") for i in range(9)]))  # fmt: skip
    among = f"SELECT id FROM t WHERE id {session.among(1, 'bigint')} AND id > $2 ORDER BY id"
    assert finished(session.rows(among, [1, 5, 7, 99], 1)) == [[5], [7]]
    joined = (
        f"SELECT t.id, j.w FROM {session.joined(1, 't', 'name', name='text', w='int')} WHERE t.id < $3 ORDER BY j.w"
    )
    assert finished(session.rows(joined, Rows([("n3", 2), ("n4", 1), ("n8", 0)], 2), 8)) == [[4, 1], [3, 2]]
    assert finished(session.rows(joined, Rows([], 2), 8)) == []
    one = f"SELECT t.id FROM {session.joined(1, 't', name='text')} ORDER BY t.id"
    assert (
        finished(session.rows(one, ["n2", "n1"]))
        == finished(session.rows(one, Rows([("n2",), ("n1",)], 1)))
        == [[1], [2]]
    )
    moved = (
        f"UPDATE t SET at = j.at FROM {session.given(1, id='int', at='float8')} WHERE {session.keyed('t.id', 'j.id')}"
    )
    assert finished(session.many(moved, [(1, 4.0), (2, 5.0), (77, 6.0)])) == 2
    assert finished(session.many(session.deleting("t", 1, id="int", name="text"), [(1, "n1"), (2, "no")])) == 1


def test_what_no_column_can_hold_is_refused(db: Db) -> None:
    session = Session(db)
    for value in ("\ud800", 2**70, ["\ud800"], [2**70], [object()]):
        with pytest.raises(ContentRefused):
            finished(session.value("SELECT $1", value))
