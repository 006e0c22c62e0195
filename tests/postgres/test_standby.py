"""A synchronous standby that is away: what is not there too is not acknowledged, whoever cancels what, and no
connection is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest

from fanout.errors import StorageUnavailable
from fanout.storage.postgres import operations
from fanout.storage.postgres.failure import Unknown
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage_kit import T0, device, submission
from fanout_kit.postgres import MISSING, PostgresServer, find_programs

from .test_connection import context
from .test_ground import _while_unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.external]

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'"
"""Not the commits of autovacuum, which wait too."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    if find_programs() is None:
        pytest.skip(MISSING)
    with PostgresServer.start() as made:
        yield made


async def require(server: PostgresServer, names: str) -> None:
    """From now on (or no more) each commit waits for that standby."""
    operator = await asyncpg.connect(server.url("postgres"))
    await operator.execute("SET synchronous_commit = 'local'")
    await operator.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    await operator.execute("SELECT pg_reload_conf()")
    while await operator.fetchval("SHOW synchronous_standby_names") != names:
        await asyncio.sleep(0.001)
    if names:
        await _until_commits_wait(server, operator)
    await operator.close()


async def _until_commits_wait(server: PostgresServer, operator: asyncpg.Connection) -> None:
    """The checkpointer reads the setting in its own time, and no commit waits before that."""
    probe = await asyncpg.connect(server.url("postgres"))
    pid = probe.get_server_pid()
    waits = f"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = {pid}"
    write = "SELECT pg_logical_emit_message(true, 'probe', '')"  # into the log, and nowhere else
    commit = asyncio.ensure_future(probe.execute(write))
    while not await operator.fetchval(waits):
        if commit.done():
            await commit
            commit = asyncio.ensure_future(probe.execute(write))
    await operator.execute(f"SELECT pg_cancel_backend({pid})")
    await commit
    await probe.close()


async def ask(server: PostgresServer, statement: str) -> object:
    operator = await asyncpg.connect(server.url("postgres"))
    try:
        return await operator.fetchval(statement)
    finally:
        await operator.close()


async def until(server: PostgresServer, count: int) -> None:
    operator = await asyncpg.connect(server.url("postgres"))
    while await operator.fetchval(WAITING) < count:
        pass
    await operator.close()


async def test_commits_that_wait_keep_their_connections_and_no_more_are_made(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = server.fresh()
    location = server.url(name, pool=3).partition(":")[2]
    async with PostgresStorage(location, context(), believe_callers=True) as storage:
        # Each in an app of its own: two connections may keep the load of one app in the same row.
        await storage.register([device("alice", "1", app=f"app-{n}") for n in range(9)], T0)
        await storage.register([device("alice", "1")], T0)
        await require(server, "nobody")
        # With a key each goes in a transaction of its own.
        subs = [submission(app=f"app-{n}", idempotency_key=str(n), digest=b"d") for n in range(9)]
        calls = [asyncio.ensure_future(storage.put([sub], T0)) for sub in subs]
        await until(server, 3)
        for call in calls:
            call.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*calls, return_exceptions=True)
        )
        monkeypatch.setattr(operations, "_LIMIT", 0.1)
        with pytest.raises(StorageUnavailable):
            await storage.put([submission(idempotency_key="another", digest=b"d")], T0)
        backends = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND backend_type = 'client backend'"
        assert await ask(server, backends) == 3
        assert await ask(server, WAITING) == 3, "nobody has ended their wait"
        monkeypatch.setattr(operations, "_LIMIT", 20.0)
        await require(server, "")
        later = submission()
        await storage.put([later], T0)
        stored = [sub.id for sub in subs if await storage.status(sub.id, T0)]
        assert len(stored) == 3
        assert await ask(server, backends) == 3, "the same connections serve again"


@pytest.mark.parametrize(
    "how",
    [
        "pg_cancel_backend",
        pytest.param("pg_terminate_backend", marks=pytest.mark.long("pg_cancel_backend is the short form")),
    ],
)
async def test_what_an_operator_ends_is_not_acknowledged_nor_is_its_repeat(
    server: PostgresServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server commits locally and calls it a success: with a warning, which counts."""
    monkeypatch.setattr(operations, "_LIMIT", 2.0)
    name = server.fresh()
    location = server.url(name, pool=8).partition(":")[2]
    async with PostgresStorage(location, context(), believe_callers=True) as storage:
        await storage.register([device("alice", "1"), device("alice", "1", app="other")], T0)
        await require(server, "nobody")
        keyed = submission(idempotency_key="once", digest=b"d")
        plain = submission(app="other")
        first = asyncio.ensure_future(
            asyncio.gather(storage.put([keyed], T0), storage.put([plain], T0), return_exceptions=True)
        )
        await until(server, 2)
        await ask(server, f"SELECT count({how}(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        for answer in await first:
            assert isinstance(answer, Unknown), answer
        # It stands there, on this server alone: the same key again is a replay, and its answer waits as the first one's
        # did.
        again = replace(submission(idempotency_key="once", digest=b"d"))
        with pytest.raises(StorageUnavailable):
            await storage.put([again], T0)
        monkeypatch.setattr(operations, "_LIMIT", 20.0)
        await require(server, "")
        (put,) = await _while_unavailable(lambda: storage.put([again], T0))
        assert (put.id, put.replayed) == (keyed.id, True)
        assert await storage.status(plain.id, T0) is not None


async def test_an_answer_that_stores_nothing_waits_as_the_one_that_stored(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has seen may have been committed here alone: acknowledged without a wait, it would be gone after a
    promotion."""
    location = server.url(server.fresh(), pool=20).partition(":")[2]
    async with PostgresStorage(location, context(), believe_callers=True) as storage:
        (known,) = await storage.register([device("alice", "1")], T0)
        (put,) = await storage.put([submission(idempotency_key="once", digest=b"d")], T0)
        await storage.cancel("default", put.id, T0)
        await storage.pause_binding("default", "apns", T0)
        await storage.remove_endpoints("default", [known.id], T0)
        (held,) = await storage.intern("default", "apns", [device("", "2").address], T0)
        await require(server, "nobody")
        monkeypatch.setattr(operations, "_LIMIT", 0.2)
        asked = {
            "a replay": lambda: storage.put([submission(idempotency_key="once", digest=b"d")], T0),
            "a cancel of what was cancelled": lambda: storage.cancel("default", put.id, T0),
            "a pause of what is paused": lambda: storage.pause_binding("default", "apns", T0),
            "a removal of what was removed": lambda: storage.remove_endpoints("default", [known.id], T0),
            "a removal of what is not there": lambda: storage.remove_endpoints("default", [10**6], T0),
            "an erasure of nobody": lambda: storage.erase_user("default", "nobody", T0),
            "an address that is known": lambda: storage.intern("default", "apns", [device("", "2").address], T0),
        }
        answered = []
        for name, call in asked.items():
            try:
                answered.append((name, await call()))
            except StorageUnavailable:
                continue
        assert answered == []
        monkeypatch.setattr(operations, "_LIMIT", 20.0)
        await require(server, "")
        assert await _while_unavailable(asked["an address that is known"]) == [held]


async def test_a_replay_in_a_transaction_of_the_hosts_waits_with_it(server: PostgresServer) -> None:
    name = server.fresh()
    async with PostgresStorage(server.url(name).partition(":")[2], context(), believe_callers=True) as storage:
        host = await asyncpg.connect(server.url(name))
        try:
            async with host.transaction():
                first = await storage.inbox.enqueue(host, submission(idempotency_key="once", digest=b"d"), T0)
            await require(server, "nobody")
            transaction = host.transaction()
            await transaction.start()
            again = await storage.inbox.enqueue(host, submission(idempotency_key="once", digest=b"d"), T0)
            assert (again.id, again.replayed) == (first.id, True)
            commit = asyncio.ensure_future(transaction.commit())
            await until(server, 1)
            assert not commit.done()
            await require(server, "")
            await commit
        finally:
            host.terminate()
