"""Settling what is its whole notification in one statement: as the long way would, for none waits on others' locks, and
in linear work."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from fanout.core.records import EndpointGone, Release, RetryRow, Settlement
from fanout.core.states import DOUBT
from fanout.storage.postgres import settling
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.store import PostgresStorage
from fanout.storage.sql import settling as shared
from fanout.storage.sql.settling import whole
from fanout.testing.storage_kit import T0, device, done, lease_all, submission
from fanout_kit.endings import ended
from tests.postgres.books import unbalanced
from tests.postgres.conftest import Databases, opened
from tests.postgres.test_claims import CONTEXT

pytestmark = [pytest.mark.anyio, pytest.mark.external]

PLAIN = Settlement(1, 1, results={("accepted", ""): [1, 0]}, attempts=2)


@pytest.mark.parametrize(
    "other",
    [
        Settlement(1, 1, results={("accepted", ""): [1]}),
        Settlement(1, 1, results={("accepted", ""): [0, 0]}),
        Settlement(1, 1, results={("accepted", ""): [*range(65)]}),
        Settlement(1, 1, results={("accepted", ""): [0], ("rejected", "x"): [1]}),
        Settlement(1, 1, results={(DOUBT, ""): [0]}),
        Settlement(1, 1, results={("odd", ""): [0]}),
        Settlement(1, 1, results={("accepted", ""): []}),
        Settlement(1, 1),
        Settlement(1, 1, results=PLAIN.results, retries=[RetryRow(2, T0, 2, "backoff", "")]),
        Settlement(1, 1, results=PLAIN.results, reopen=[2]),
        Settlement(1, 1, results=PLAIN.results, marks=[2]),
        Settlement(1, 1, results=PLAIN.results, changes=[EndpointGone(1, 1, T0, "")]),
        Settlement(1, 1, results=PLAIN.results, release=Release(T0, "ready")),
    ],
    ids=str,
)
def test_only_what_has_ended_alike_may_end_its_notification_at_once(other: Settlement) -> None:
    other.chunk = 2
    assert whole([other, PLAIN]) == [1]
    assert whole([PLAIN, PLAIN]) == [], "of two settlements of a chunk the order counts"


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements with arguments that are sent."""
    sent: list[str] = []
    rows = Db.rows

    async def noted(db: Db, sql: str, *args: Any) -> list[Any]:
        sent.append(sql)
        return await rows(db, sql, *args)

    monkeypatch.setattr(Db, "rows", noted)
    return sent


async def test_it_is_as_the_long_way_would(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, statements: list[str]
) -> None:
    seen = []
    for way in (whole, lambda settlements: []):
        monkeypatch.setattr(shared, "whole", way)
        monkeypatch.setattr("fanout.testing.storage_kit._numbers", iter(range(10**9, 2 * 10**9)))
        name = await databases.lend()
        try:
            async with opened(databases.server, name, CONTEXT) as storage:
                seen.append(await ended(storage, random.Random(1)))
            assert await unbalanced(databases.server.url(name)) == {}
        finally:
            await databases.give_back(name)
        assert (settling._END in statements) == (way is whole)
        statements.clear()
    (one, read), (other, read_too) = seen
    assert read == read_too
    assert [answer.stale for answer in one] == [answer.stale for answer in other]
    # Of several settlements of one notification in a batch, any may be the one that is told to have ended it.
    assert sorted(answer.finished for answer in one) == sorted(answer.finished for answer in other)


async def test_however_many_there_are_they_end_in_one_statement(
    open_storage: Callable[..., PostgresStorage], databases: Databases, statements: list[str]
) -> None:
    name = await databases.lend()
    async with opened(databases.server, name, CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(3)], T0)
        await storage.put([submission() for _ in range(40)], T0)
        chunks = await lease_all(storage)
        statements.clear()
        answers = await storage.settle([done(chunk) for chunk in chunks], T0)
        assert all(answer.finished for answer in answers)
        assert statements == [settling._END]
    await databases.give_back(name)


@pytest.mark.parametrize("table", ["notification", "chunk"])
@pytest.mark.parametrize("whole_one", [True, False])
async def test_what_others_hold_is_waited_for_with_nothing_in_hand(
    databases: Databases, table: str, whole_one: bool
) -> None:
    """Another transaction holds the first notification, or its chunk, and wants the second one, as each does that goes
    by their order."""
    name = await databases.lend()
    other = await asyncpg.connect(databases.server.url(name), server_settings={"search_path": "fanout"})
    try:
        async with opened(databases.server, name, CONTEXT) as storage:
            await storage.register([device("alice", "1")], T0)
            await storage.put([submission() for _ in range(2)], T0)
            first, second = sorted(await lease_all(storage), key=lambda chunk: chunk.id)
            transaction = other.transaction()
            await transaction.start()
            held = "SELECT 1 FROM {} WHERE id = {} FOR NO KEY UPDATE"
            of = "(SELECT notification FROM chunk WHERE id = $1)"
            await other.execute(held.format(table, "$1" if table == "chunk" else of), first.id)
            settlements = [done(second), done(first)]
            if not whole_one:
                settlements[1].release = Release(T0, "gate")
            task = asyncio.create_task(storage.settle(settlements, T0))
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
            async with asyncio.timeout(120):
                while not await other.fetchval(waits, name):
                    await asyncio.sleep(0.002)
            if table == "notification":
                await other.execute(held.format("notification", of) + " NOWAIT", second.id)
            await transaction.commit()
            assert all(answer.finished for answer in await task)
    finally:
        await other.close()
        await databases.give_back(name)


async def test_settling_four_times_as_many_is_four_times_the_work(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that the server's plans pass from node to node: for leases and settlements, those that are whole and those
    that are not."""
    rows, work = Db.rows, [0]

    async def counted(db: Db, sql: str, *args: Any) -> list[Any]:
        if db.connection.is_in_transaction():
            await db.connection.execute("SAVEPOINT before")
            answer = await db.connection.fetchval(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {sql}", *args)
            await db.connection.execute("ROLLBACK TO SAVEPOINT before")
            work[0] += _passed(json.loads(answer)[0]["Plan"])
        return await rows(db, sql, *args)

    name = await databases.lend()
    totals: dict[int, list[int]] = {}
    async with opened(databases.server, name, CONTEXT) as storage:
        await storage.register([device("alice", "1"), device("alice", "2")], T0)
        for count in (100, 400):
            totals[count] = []
            for half in (False, True):
                await storage.put([submission() for _ in range(count)], T0)
                monkeypatch.setattr(Db, "rows", counted)
                work[0] = 0
                chunks = await lease_all(storage)
                assert len(chunks) == count
                totals[count].append(work[0])
                work[0] = 0
                settlements = [done(chunk) for chunk in chunks]
                if half:
                    settlements = [
                        Settlement(
                            each.chunk, each.epoch, results={("accepted", ""): [0]}, release=Release(T0 + 99, "gate")
                        )
                        for each in settlements
                    ]
                await storage.settle(settlements, T0)
                totals[count].append(work[0])
                monkeypatch.setattr(Db, "rows", rows)
    await databases.give_back(name)
    for few, many in zip(totals[100], totals[400], strict=True):
        assert 0 < many < 5 * few + 2000, totals


def _passed(node: dict[str, Any]) -> int:
    """Rows that a node and those below it gave or looked at."""
    seen = sum(value for key, value in node.items() if key == "Actual Rows" or key.startswith("Rows Removed"))
    return int(seen * node["Actual Loops"]) + sum(_passed(each) for each in node.get("Plans", ()))
