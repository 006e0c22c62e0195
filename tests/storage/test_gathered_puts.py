"""Puts of many callers that wait for SQLite's thread share their statements, and each hears of its own fault only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fanout.core.model import Target
from fanout.core.records import Submission
from fanout.errors import UsageError
from fanout.plugin import StorageContext
from fanout.storage.acceptance import MOST
from fanout.storage.sql.registration import register
from fanout.storage.sql.standing import status
from fanout.storage.sql.storage import SqlStorage
from fanout.storage.sqlite.driver import SqliteDriver
from fanout.storage.sqlite.hot import HOT
from fanout.storage.sqlite.operations import Database, Operation
from fanout.storage.sqlite.session import finished, shared
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, submission


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(str(tmp_path / "x.db"), StorageContext(clock=VirtualClock(T0)), HOT)
    devices = [device(f"u{number}", str(number)) for number in range(20)]
    opened.write([Operation(lambda db: shared(db, register, devices, T0), True)])
    yield opened
    opened.close()


class Kept:
    """An offload that only keeps what it is asked for."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    async def start(self, open_database: Callable[[], Database]) -> None:
        raise NotImplementedError

    async def run(self, *operations: Operation) -> None:
        self.operations += operations

    async def stop(self) -> None:
        raise NotImplementedError


def asked(*submissions: Submission, now: float = T0) -> Operation:
    """What the storage makes of a put."""
    kept = Kept()
    finished(SqlStorage(SqliteDriver(kept, StorageContext(clock=VirtualClock(T0)))).put(submissions, now))
    return kept.operations[0]


def counted(database: Database, operations: Sequence[Operation]) -> int:
    """Do them; how many statements they took."""
    texts: list[str] = []
    database._connection.exec_trace = lambda cursor, text, bindings: bool(texts.append(text)) or True
    database.write(operations)
    database._connection.exec_trace = None
    return len(texts)


def test_twenty_puts_take_the_statements_of_one(database: Database) -> None:
    subs = [submission(Target.user(f"u{number}")) for number in range(21)]
    one = counted(database, [asked(subs[20])])
    puts = [asked(sub, now=T0 + number / 1000) for number, sub in enumerate(subs[:20])]
    assert counted(database, puts) == one
    assert [[(answer.id, answer.total) for answer in each.result] for each in puts] == [[(s.id, 1)] for s in subs[:20]]


def test_a_fault_is_told_to_its_own_caller(database: Database) -> None:
    puts = [asked(submission(Target.user(f"u{number}"), lane=2**70 if number == 7 else 1)) for number in range(20)]
    database.write(puts)
    assert [number for number, each in enumerate(puts) if each.error is not None] == [7]
    assert isinstance(puts[7].error, UsageError)
    stored = [shared(database._db, status, each.puts[0][0].id, T0) is not None for each in puts if each.puts]
    assert stored == [number != 7 for number in range(20)]


def test_what_may_be_refused_or_conflict_is_stored_apart_and_in_its_place(database: Database) -> None:
    plain = [asked(submission(Target.user(f"u{number}"))) for number in range(4)]
    keyed = [replace(submission(Target.user("u9")), idempotency_key="k", digest=digest) for digest in (b"a", b"b")]
    between = [asked(each) for each in keyed]
    database.write([*plain[:2], *between, *plain[2:]])
    assert [each.result[0].id for each in plain] == [each.puts[0][0].id for each in plain if each.puts]
    assert between[0].result[0].id == between[1].result[0].conflict == keyed[0].id


def test_of_a_flood_so_many_go_together(database: Database) -> None:
    flood = [asked(*[submission(Target.user("u1")) for _ in range(size)]) for size in (MOST - 1, 1, 1)]
    database.write(flood)
    assert [len(each.result) for each in flood] == [MOST - 1, 1, 1]
    assert all(answer.total == 1 for each in flood for answer in each.result)
