"""Transactional enqueue: a notification exists if and only if the host's transaction commits, in every driver."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import fanout.sync
from fanout.core.model import Notification, Target
from fanout.core.records import Taken
from fanout.errors import Conflict, UsageError
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage_kit import T0, lease_all, settle_all, standing, submission
from fanout_kit.postgres import PostgresServer
from tests.postgres.conftest import Databases
from tests.postgres.hosts import ASYNC, BLOCKING, EVERY, begin, django_connection
from tests.postgres.places import CONTEXT, Place, keyed, lent

pytestmark = [pytest.mark.anyio, pytest.mark.external]


@pytest.fixture
async def place(databases: Databases, open_storage: Callable[..., PostgresStorage]) -> AsyncIterator[Place]:
    async with lent(databases, open_storage) as found:
        yield found


# -- in every driver


@pytest.mark.parametrize("kind", EVERY)
async def test_it_exists_if_and_only_if_the_transaction_commits(place: Place, kind: str) -> None:
    lost, kept = submission(), submission()
    async with begin(kind, place.url, commit=False) as transaction:
        assert await transaction.put(lost) == (lost.id, False)
        assert await place.storage.status(lost.id, T0) is None, "not before the commit"
    async with begin(kind, place.url) as transaction:
        assert await transaction.put(kept) == (kept.id, False)
        assert await place.storage.status(kept.id, T0) is None
        assert await place.take() == []
    assert await place.storage.status(lost.id, T0) is None
    status = await standing(place.storage, kept.id)
    assert (status.state, status.total, status.finished_at, status.app) == ("expanding", None, None, "default")
    assert await place.storage.finished([kept.id, lost.id]) == {lost.id}
    assert await place.storage.outstanding() == {"ready": 1}
    assert await place.due()
    (taken,) = await place.take()
    assert (taken.submission, taken.put.id, taken.put.total) == (kept, kept.id, 1)
    assert not await place.due()
    await settle_all(place.storage, await lease_all(place.storage))
    assert (await standing(place.storage, kept.id)).counts["accepted"] == 1
    assert await place.storage.finished([kept.id]) == {kept.id}


@pytest.mark.parametrize("kind", EVERY)
async def test_a_savepoint_that_is_rolled_back_takes_its_notification_along(place: Place, kind: str) -> None:
    outer, inner, last = submission(), submission(), submission()
    async with begin(kind, place.url) as transaction:
        await transaction.put(outer)
        await transaction.sql("SAVEPOINT s")
        await transaction.put(inner)
        await transaction.sql("ROLLBACK TO SAVEPOINT s")
        await transaction.put(last)
    assert [each.submission.id for each in await place.take()] == [outer.id, last.id]
    assert await place.storage.status(inner.id, T0) is None


@pytest.mark.parametrize("kind", EVERY)
async def test_a_key_is_known_in_its_own_transaction(place: Place, kind: str) -> None:
    first = keyed()
    async with begin(kind, place.url) as transaction:
        assert await transaction.put(first) == (first.id, False)
        assert await transaction.put(keyed()) == (first.id, True)
        with pytest.raises(Conflict, match=first.id):
            await transaction.put(keyed(body=b"{}"))
        other = keyed("another")
        assert await transaction.put(other) == (other.id, False)
    assert len(await place.take()) == 2
    async with begin(kind, place.url) as transaction:
        assert await transaction.put(keyed()) == (first.id, True), "and when it was put long ago"
    assert await place.take() == []


@pytest.mark.parametrize("kind", EVERY)
async def test_content_of_every_kind_arrives_as_it_was(place: Place, kind: str) -> None:
    sub = submission(Target.users(["Zoë", "a:b", "x'y\"z", "%s $1 :id"]), due_at=T0 + 5, lane=2, collapse_key="π")
    sub = replace(sub, content='{"title":"Grüße \\u0000 %s :x $1 {y} 😀"}'.encode(), repeat="at_most_once")
    async with begin(kind, place.url) as transaction:
        await transaction.put(sub)
    (taken,) = await place.take()
    assert taken.submission == sub
    stored = await place.storage.notification(sub.id)
    assert stored is not None
    assert (stored.content, stored.lane, stored.due_at, stored.repeat) == (sub.content, 2, T0 + 5, "at_most_once")
    assert (await standing(place.storage, sub.id)).state == "scheduled"


@pytest.mark.parametrize("kind", EVERY)
async def test_a_database_without_the_tables_is_named(place: Place, kind: str) -> None:
    with pytest.raises(UsageError, match="schema elsewhere with fanout's tables"):
        async with begin(kind, place.url) as transaction:
            await transaction.put(submission(), schema="elsewhere")


# -- connections that will not do


async def test_outside_of_a_transaction_it_would_be_sent_at_once(place: Place) -> None:
    connection = await asyncpg.connect(place.url)
    with pytest.raises(UsageError, match="in no transaction"):
        await place.storage.inbox.enqueue(connection, submission(), T0)
    await connection.close()
    async with await psycopg.AsyncConnection.connect(place.url, autocommit=True) as free:
        with pytest.raises(UsageError, match="in no transaction"):
            await place.storage.inbox.enqueue(free, submission(), T0)
        async with free.transaction():
            await place.storage.inbox.enqueue(free, submission(), T0)
    engine = create_async_engine(place.url.replace("postgresql", "postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as careless:
        with pytest.raises(UsageError, match="in no transaction"):
            await place.storage.inbox.enqueue(careless, submission(), T0)
    await engine.dispose()

    def blocking() -> None:
        with psycopg.connect(place.url, autocommit=True) as free:
            with pytest.raises(UsageError, match="in no transaction"):
                fanout.sync.enqueue(free, Notification(title="x"), "user:alice")
            with free.transaction():
                fanout.sync.enqueue(free, Notification(title="x"), "user:alice")
        wrapper = django_connection(place.url)
        with pytest.raises(UsageError, match=r"transaction\.atomic"):
            fanout.sync.enqueue(wrapper, Notification(title="x"), "user:alice")
        wrapper.close()
        bad = sqlalchemy.create_engine(
            place.url.replace("postgresql", "postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )
        with bad.connect() as careless, pytest.raises(UsageError, match="in no transaction"):
            fanout.sync.enqueue(careless, Notification(title="x"), "user:alice")
        bad.dispose()
        elsewhere = sqlalchemy.create_engine("sqlite://")
        with elsewhere.connect() as lite, pytest.raises(UsageError, match="leads to sqlite"):
            fanout.sync.enqueue(lite, Notification(title="x"), "user:alice")
        elsewhere.dispose()

    await asyncio.to_thread(blocking)
    assert len(await place.take()) == 2


async def test_a_connection_of_another_kind_is_refused_by_name(place: Place) -> None:
    with pytest.raises(UsageError, match=r"builtins\.int: it takes asyncpg\.Connection"):
        await place.storage.inbox.enqueue(7, submission(), T0)
    for kind in BLOCKING:
        async with begin(kind, place.url) as transaction:
            with pytest.raises(UsageError, match=r"fanout\.sync\.enqueue"):
                await place.storage.inbox.enqueue(transaction.connection, submission(), T0)
    for kind in ASYNC:
        async with begin(kind, place.url) as transaction:
            with pytest.raises(UsageError, match=r"engine\.send"):
                fanout.sync.enqueue(transaction.connection, Notification(title="x"), "user:alice")
    assert await place.take() == []


async def test_the_user_of_the_connection_needs_few_rights(place: Place, server: PostgresServer) -> None:
    database = place.url.rpartition("/")[2]
    server.sql("DROP ROLE IF EXISTS shop; CREATE ROLE shop LOGIN PASSWORD 'x'", database)
    url = server.url(database, user="shop", password="x")
    with pytest.raises(UsageError, match="GRANT") as caught:
        async with begin("asyncpg", url) as transaction:
            await transaction.put(submission())
    _, _, grants = str(caught.value).partition(": GRANT ")
    assert grants.startswith("USAGE ON SCHEMA fanout, SELECT ON fanout.app, fanout.idempotency, and SELECT, INSERT ON ")
    try:
        server.sql("GRANT USAGE ON SCHEMA fanout TO shop", database)
        server.sql("GRANT SELECT ON fanout.app, fanout.idempotency, fanout.inbox TO shop", database)
        server.sql("GRANT INSERT ON fanout.inbox TO shop", database)
        async with begin("asyncpg", url) as transaction:
            await transaction.put(keyed())
        assert len(await place.take()) == 1
    finally:
        server.sql("DROP OWNED BY shop; DROP ROLE shop", database)


# -- many at once


async def test_an_open_transaction_holds_nobody_up(place: Place) -> None:
    async with begin("asyncpg", place.url, commit=False) as first, begin("asyncpg", place.url) as second:
        for transaction in (first, second):
            await transaction.sql("SET lock_timeout = '1ms'")
        await first.put(keyed("a"))
        await first.put(keyed("b"))
        await second.put(keyed("b"))
        await second.put(keyed("a"))
        await place.storage.put([submission()], T0)
        assert await place.take() == []
    assert len(await place.take()) == 2


async def test_a_key_that_two_transactions_enter_at_once_is_one_notification(place: Place) -> None:
    one, two = keyed(), keyed()
    async with begin("asyncpg", place.url) as first, begin("psycopg-async", place.url) as second:
        await first.put(one)
        assert await second.put(two) == (two.id, False), "what has not been committed cannot be known"
    assert await place.storage.finished([one.id, two.id]) == set()
    assert {each.put.replayed for each in await place.take()} == {True, False}
    statuses = [await standing(place.storage, sub.id) for sub in (one, two)]
    assert statuses[0] == statuses[1]
    assert await place.storage.finished([one.id, two.id]) == set()
    assert [await place.storage.explain(sub.id, 7) for sub in (one, two)] == [[], []]
    for sub in (one, two):
        await place.storage.pause("default", sub.id, T0)
        assert (await standing(place.storage, one.id)).state == "paused"
        await place.storage.resume("default", sub.id, T0)
    assert len(await lease_all(place.storage)) == 1
    assert await place.storage.cancel("default", two.id, T0) == 1
    assert await place.storage.stopped([one.id, two.id]) != {}


@pytest.mark.parametrize("workers", [1, 3])
async def test_many_enqueuers_and_workers(
    place: Place, open_storage: Callable[..., PostgresStorage], workers: int
) -> None:
    database = place.url.rpartition("/")[2]
    expected: set[str] = set()
    taken: list[str] = []
    ended = asyncio.Event()

    async def host(number: int) -> None:
        for round in range(10):
            subs = [submission() for _ in range(3)]
            commit = (number + round) % 3 > 0
            async with begin(ASYNC[number % 2], place.url, commit=commit) as transaction:
                for sub in subs:
                    await transaction.put(sub)
            if commit:
                expected.update(sub.id for sub in subs)

    async def worker(storage: PostgresStorage) -> None:
        while True:
            over = ended.is_set()
            found = await place.take(storage, limit=7)
            taken.extend(each.put.id for each in found)
            if over and not found and not await storage.inbox.due(["default"], T0):
                return

    async with AsyncExitStack() as stack:
        storages = [await stack.enter_async_context(open_storage(database, CONTEXT)) for _ in range(workers)]
        tasks = [asyncio.create_task(worker(storage)) for storage in storages]
        await asyncio.gather(*(host(number) for number in range(8)))
        ended.set()
        await asyncio.gather(*tasks)
    assert len(taken) == len(set(taken)) == len(expected)
    assert set(taken) == expected
    assert {row["uuid"] for row in await place.sql("SELECT uuid FROM notification")} == expected
    assert await place.sql("SELECT 1 FROM inbox") == []


_WORKER = """
import asyncio, os, signal, sys
from fanout.plugin import StorageContext
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.clock import VirtualClock

async def main(location, moment):
    seen = 0
    def judge(sub):
        nonlocal seen
        seen += 1
        if moment == "judging" and seen == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return sub, {}
    async with PostgresStorage(location, StorageContext(clock=VirtualClock(0.0)), believe_callers=True) as storage:
        if moment == "committing":
            # Everything is done in the transaction, and only the commit is missing.
            from fanout.storage.postgres import inbox
            record = inbox._record
            async def last(*arguments):
                await record(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            inbox._record = last
        await storage.inbox.take(["default"], judge, float(sys.argv[3]), limit=100)

asyncio.run(main(*sys.argv[1:3]))
"""


@pytest.mark.parametrize("moment", ["judging", "committing"])
async def test_a_worker_that_is_killed_has_taken_nothing(place: Place, moment: str) -> None:
    subs = [submission() for _ in range(10)]
    async with begin("asyncpg", place.url) as transaction:
        for sub in subs:
            await transaction.put(sub)
    location = place.url.partition(":")[2]
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _WORKER, location, moment, str(T0)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    taken: list[Taken] = []
    while len(taken) < len(subs):  # until the server has noticed that its client is gone
        assert await place.due()
        taken += await place.take()
    assert [each.put.id for each in taken] == [sub.id for sub in subs]
    assert not any(each.put.replayed for each in taken)
    assert not await place.due()


async def test_an_idle_snapshot_does_not_make_looking_dearer(place: Place) -> None:
    async with begin("asyncpg", place.url) as idle:
        await idle.sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await idle.sql("SELECT 1")
        for _ in range(3):
            async with begin("asyncpg", place.url) as transaction:
                for _ in range(100):
                    await transaction.put(submission())
            while await place.due():
                await place.take()
        low = place.storage.inbox._low
        rows = await place.sql(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS) SELECT xid FROM inbox WHERE xid >= $1::text::xid8 "
            "ORDER BY xid LIMIT 1",
            str(low),
        )
        plan = "\n".join(row[0] for row in rows)
        assert "inbox_order" in plan
        # The 300 rows are dead, but nobody may clean them away; they are not looked at again.
        (read,) = [
            int(part.partition("=")[2]) for part in plan.split("Planning")[0].split() if part.startswith("hit=")
        ][:1]
        assert read <= 4, plan


# -- without an engine


def test_a_program_that_only_enqueues_imports_no_engine(server: PostgresServer, databases: Databases) -> None:
    program = (
        "import sys, psycopg, fanout, fanout.sync\n"
        "with psycopg.connect(sys.argv[1]) as connection:\n"
        "    made = fanout.sync.enqueue(connection, fanout.Notification(title='x'), 'user:alice', idempotency_key='k')\n"
        "    again = fanout.sync.enqueue(connection, fanout.Notification(title='x'), 'user:alice', idempotency_key='k')\n"
        "assert (made.id, made.replayed, again) == (again.id, False, (made.id, True)), (made, again)\n"
        "heavy = [name for name in ('fanout.engine', 'fanout.bootstrap', 'fanout.storage', 'anyio', 'asyncpg') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    name = asyncio.run(databases.lend())
    done = subprocess.run(
        [sys.executable, "-c", program, server.url(name)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert server.sql("SELECT count(*) FROM fanout.inbox", name) == "1"
    asyncio.run(databases.give_back(name))
