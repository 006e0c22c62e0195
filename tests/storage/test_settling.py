"""Chunks that are their whole notification are settled together on SQLite: as the long way would, and in as many
statements as one of them."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from fanout.plugin import StorageContext
from fanout.storage.sql import settling
from fanout.storage.sqlite.hot import HOT
from fanout.storage.sqlite.operations import Database, Operation
from fanout.storage.sqlite.session import shared
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, done, lease_all, submission
from fanout_kit.endings import ended

pytestmark = pytest.mark.anyio
CONTEXT = StorageContext(clock=VirtualClock(T0), chunk=4)


async def test_it_is_as_the_long_way_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for way in (settling.whole, lambda settlements: []):
        monkeypatch.setattr(settling, "whole", way)
        monkeypatch.setattr("fanout.testing.storage_kit._numbers", iter(range(10**9, 2 * 10**9)))
        async with SqliteStorage(str(tmp_path / f"{len(seen)}.db"), CONTEXT, offload=Inline) as storage:
            seen.append(await ended(storage, random.Random(1)))
    (one, read), (other, read_too) = seen
    assert read == read_too
    assert [answer.stale for answer in one] == [answer.stale for answer in other]
    # Of several settlements of one notification in a batch, any may be the one that is told to have ended it.
    assert sorted(answer.finished for answer in one) == sorted(answer.finished for answer in other)


async def test_however_many_there_are_they_end_in_as_many_statements(tmp_path: Path) -> None:
    counts = []
    for many in (2, 40):
        path = str(tmp_path / f"{many}.db")
        async with SqliteStorage(path, CONTEXT, offload=Inline) as storage:
            await storage.register([device("alice", str(i)) for i in range(3)], T0)
            await storage.put([submission() for _ in range(many)], T0)
            settlements = [done(chunk) for chunk in await lease_all(storage)]
        database = Database(path, CONTEXT, HOT)
        statements: list[str] = []

        def noted(cursor: apsw.Cursor, sql: str, bindings: object, seen: list[str] = statements) -> bool:
            seen.append(sql)
            return True

        database._connection.exec_trace = noted
        operation = Operation(lambda db, those=settlements: shared(db, settling.settle, those, T0), write=True)
        assert database.write([operation])
        database.close()
        assert all(answer.finished for answer in operation.result)
        counts.append(len([sql for sql in statements if not sql.lstrip().startswith("--")]))
    assert counts[0] == counts[1] <= 8
