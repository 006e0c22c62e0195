"""Connections that are cut, a server that is stopped or was never there: what a call answers, and that it works
afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.model import Target
from fanout.core.records import EndpointFilter, Release, RetryRow, Settled, Settlement
from fanout.core.states import Waiting
from fanout.errors import ConfigurationError, StorageError, StorageRefused
from fanout.plugin import Storage, StorageContext
from fanout.storage.postgres import operations
from fanout.storage.postgres.failure import Unknown
from fanout.storage.postgres.store import PostgresStorage, make
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, lease_all, post, standing, submission
from fanout_kit.postgres import MISSING, PostgresServer, find_programs

from .conftest import Databases
from .cutter import Cutter

pytestmark = [pytest.mark.anyio, pytest.mark.external]

COMMIT = re.compile(rb"COMMIT(?!TED)")


def context() -> StorageContext:
    return StorageContext(clock=VirtualClock(T0))


@asynccontextmanager
async def through(databases: Databases) -> AsyncIterator[tuple[PostgresStorage, Cutter]]:
    """A storage whose connections pass through a `Cutter`."""
    name = await databases.lend()
    server = databases.server
    try:
        async with Cutter(server.port) as cutter:
            url = server.url(name).replace(f":{server.port}/", f":{cutter.port}/")
            async with PostgresStorage(url.partition(":")[2], context(), believe_callers=True) as storage:
                yield storage, cutter
    finally:
        await databases.give_back(name)


@pytest.mark.parametrize("after", [False, True])
async def test_registration_is_cut_at_commit(databases: Databases, after: bool) -> None:
    async with through(databases) as (storage, cutter):
        cutter.cut(COMMIT, after=after)
        (entered,) = await storage.register([device("alice", "1", tags=["t"])], T0)
        assert cutter.cuts == 1
        assert await storage.list_endpoints(EndpointFilter(state=None)) == [entered]
        assert await storage.count_endpoints("default", Target.topic("t")) == {"apns": 1}
        cutter.cut(COMMIT, after=after)
        assert await storage.remove_endpoints("default", [entered.id], T0 + 1) == 1
        assert [event.kind for event in await storage.events()] == ["endpoint.removed"]
        await storage.register([device("alice", "1"), device("alice", "2")], T0 + 2)
        cutter.cut(COMMIT, after=after)
        assert await storage.erase_user("default", "alice", T0 + 3) == 2
        assert cutter.cuts == 3


@pytest.mark.parametrize("after", [False, True])
async def test_opening_is_cut_at_commit(server: PostgresServer, after: bool) -> None:
    """The tables of a new database are made in several commits; what was done is found by the next connection."""
    name = server.fresh()
    async with Cutter(server.port) as cutter:
        url = server.url(name).replace(f":{server.port}/", f":{cutter.port}/")
        cutter.cut(COMMIT, after=after, times=3)
        async with PostgresStorage(url.partition(":")[2], context(), believe_callers=True) as storage:
            assert cutter.cuts == 3
            assert len(await storage.register([device("alice", "1")], T0)) == 1
    server.drop(name)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("key", [None, "once"])
async def test_put_is_cut_at_commit(databases: Databases, after: bool, key: str | None) -> None:
    """It is stored once, and the answer is the one that it would have been."""
    async with through(databases) as (storage, cutter):
        await storage.register([device("alice", str(i)) for i in range(3)], T0)
        first = submission(collapse_key="c")
        await post(storage, first)
        cutter.cut(COMMIT, after=after)
        sub = submission(collapse_key="c", idempotency_key=key, digest=b"d")
        wide = submission(Target.all())
        answers = await storage.put([sub, wide], T0)
        assert cutter.cuts == 1
        assert [(put.id, put.replayed, put.conflict, put.total) for put in answers] == [
            (sub.id, False, "", 3),
            (wide.id, False, "", None),
        ]
        assert answers[0].superseded in ((first.id,), ())
        assert (await standing(storage, first.id)).counts["superseded"] == 3
        assert (await standing(storage, sub.id)).counts["pending"] == 3
        backlog = await storage.backlog("default")
        assert backlog.deliveries == 4


@pytest.mark.parametrize("after", [False, True])
async def test_settlement_is_cut_at_commit(databases: Databases, after: bool) -> None:
    async with through(databases) as (storage, cutter):
        await storage.register([device("alice", str(i)) for i in range(4)], T0)
        sub = submission()
        await post(storage, sub)
        (chunk,) = await lease_all(storage)
        cutter.cut(COMMIT, after=after)
        some = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]}, attempts=1)
        some.retries = [RetryRow(1, T0 + 9, 2, Waiting.BACKOFF.value, "busy")]
        assert await storage.settle([some], T0) == [Settled(False)]
        status = await standing(storage, sub.id)
        assert (status.counts["accepted"], status.attempts) == (1, 1)
        assert dict(status.pending_by_reason) == {"ready": 2, "backoff": 1}
        cutter.cut(COMMIT, after=after)
        back = Settlement(chunk.id, chunk.epoch, release=Release(T0 + 5, Waiting.GATE.value, "shut"))
        assert await storage.settle([back], T0) == [Settled(False)]
        (chunk,) = await lease_all(storage, T0 + 5)
        assert await storage.settle([Settlement(chunk.id, chunk.epoch - 1)], T0 + 5) == [Settled(True)]
        cutter.cut(COMMIT, after=after)
        rest = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [2, 3]}, attempts=2)
        assert await storage.settle([rest], T0 + 5) == [Settled(False)]
        (chunk,) = await lease_all(storage, T0 + 9)
        cutter.cut(COMMIT, after=after)
        last = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]}, attempts=1)
        assert await storage.settle([last], T0 + 9) == [Settled(False, sub.id)]
        assert cutter.cuts == 4
        status = await standing(storage, sub.id, T0 + 9)
        assert (status.state, status.counts["accepted"], status.attempts) == ("done", 4, 4)
        kinds = [event.kind for event in await storage.events()]
        assert kinds == ["notification.finished"]


@pytest.mark.parametrize("after", [False, True])
async def test_lease_is_cut_at_commit(databases: Databases, after: bool) -> None:
    """No two leases of one epoch: what was leased for nobody is leased again when its time is over."""
    async with through(databases) as (storage, cutter):
        await storage.register([device("alice", "1")], T0)
        sub = submission()
        await post(storage, sub)
        cutter.cut(COMMIT, after=after)
        chunks = await lease_all(storage, T0)
        assert cutter.cuts == 1
        chunks += await lease_all(storage, T0 + 31)
        assert [chunk.epoch for chunk in chunks] == sorted({chunk.epoch for chunk in chunks})
        assert await storage.settle([Settlement(chunks[-1].id, chunks[-1].epoch)], T0 + 31) == [Settled(False)]


async def test_nobody_knows(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database does not come back in time, a call says that it may have been stored; a settlement can be
    repeated."""
    monkeypatch.setattr(operations, "_PATIENCE", 0.3)
    async with through(databases) as (storage, cutter):
        await storage.register([device("alice", str(i)) for i in range(2)], T0)
        sub = submission()
        await post(storage, sub)
        (chunk,) = await lease_all(storage)
        cutter.cut(COMMIT, after=True, dark=True)
        settlement = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]}, attempts=1)
        with pytest.raises(Unknown, match="may have been stored"):
            await storage.settle([settlement], T0)
        with pytest.raises(StorageError):
            await storage.status(sub.id, T0)
        cutter.light()
        assert await settled(storage, replace(settlement)) == [Settled(False)]
        status = await standing(storage, sub.id)
        assert (status.counts["accepted"], status.attempts) == (1, 1)
        rest = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [1]}, attempts=1)
        assert await storage.settle([rest], T0) == [Settled(False, sub.id)]


async def test_a_lease_that_nobody_heard_of_is_named_and_can_be_given_back(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not left until it has run out: it is this worker's own, without its knowing."""
    monkeypatch.setattr(operations, "_PATIENCE", 0.3)
    async with through(databases) as (storage, cutter):
        await storage.register([device("alice", str(i)) for i in range(2)], T0)
        first, second = submission(), submission()
        await post(storage, first)
        for at, sub in ((T0, second), (T0 + 1, None)):
            cutter.cut(COMMIT, after=True, dark=True)
            with pytest.raises(Unknown):
                await storage.lease("w1", "default", "apns", 1, limit=10, now=at, until=at + 30)
            cutter.light()
            if sub is not None:
                while True:
                    try:
                        await storage.put([sub], T0)
                        break
                    except StorageError:
                        await asyncio.sleep(0)
        unheard = await storage.fleet.holdings("w1", T0 + 2)
        assert len(unheard) == 2, "nothing of it was taken by the second call"
        back = Release(T0 + 2, Waiting.READY.value)
        answers = await storage.settle([Settlement(*lease, release=back) for lease in unheard], T0 + 2)
        assert [answer.stale for answer in answers] == [False, False]
        chunks = await storage.lease("w2", "default", "apns", 1, limit=10, now=T0 + 2, until=T0 + 32)
        assert [chunk.notification for chunk in chunks] == [first.id, second.id]


async def settled(storage: Storage, settlement: Settlement) -> list[Settled]:
    """As the engine does it: again, until the database is there."""
    while True:
        try:
            return await storage.settle([settlement], T0)
        except StorageError:
            await asyncio.sleep(0)


async def test_idle_connections_die_unnoticed(databases: Databases) -> None:
    """A call is not spoilt by a connection that was lost while nobody looked."""
    name = await databases.lend()
    async with PostgresStorage(databases.server.url(name).partition(":")[2], context()) as storage:
        await asyncio.gather(*(storage.changes() for _ in range(8)))
        databases.server.sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
        assert len(await storage.register([device("alice", "1")], T0)) == 1
        assert len(await asyncio.gather(*(storage.get_endpoint("default", 1) for _ in range(8)))) == 8
    await databases.give_back(name)


async def test_server_goes_and_comes_back() -> None:
    if find_programs() is None:
        pytest.skip(MISSING)
    with PostgresServer.start(fsync=True) as server:
        location = server.url(server.fresh()).partition(":")[2]
        async with PostgresStorage(location, context(), believe_callers=True) as storage:
            (kept,) = await storage.register([device("alice", "1")], T0)
            await asyncio.to_thread(server.stop, "immediate")
            began = time.monotonic()
            calls: list[Awaitable[Any]] = [storage.changes(), storage.get_endpoint("default", kept.id), storage.probe()]
            calls += [storage.register([device("bob", str(i))], T0) for i in range(8)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(answer, StorageError) for answer in answers), answers
            assert time.monotonic() - began < 15
            assert_hidden(server, answers)
            assert all("127.0.0.1" in str(answer) for answer in answers)
            await asyncio.to_thread(server.up)
            assert await storage.get_endpoint("default", kept.id) == kept
            assert len(await storage.register([device("bob", "2")], T0)) == 1


def assert_hidden(server: PostgresServer, errors: Any) -> None:
    """No message and no traceback tells the password."""
    for error in errors:
        assert isinstance(error, Exception)
        told = "".join(traceback.format_exception(error))
        assert server.password not in told
        assert "wrong" not in told.replace("wrong user", "")


async def test_no_way_in(server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cases = [
        (server.url("postgres", password="wrong"), StorageRefused, "does not let this user in"),
        (server.url("postgres", user="nobody_here"), StorageRefused, "does not let this user in"),
        (server.url("no_such_database"), StorageRefused, "no such database"),
        (server.url("postgres").replace(f":{server.port}/", ":1/"), StorageError, "cannot be reached"),
        (server.url("postgres", sslmode="nonsense"), StorageRefused, "cannot be used"),
        (server.url("postgres", sslmode="require"), StorageError, "cannot be reached"),
    ]
    for url, kind, text in cases:
        storage = make(url.partition(":")[2], context())
        assert server.password not in repr(storage) + storage.location
        with pytest.raises(kind, match=text) as caught:
            await storage.__aenter__()
        assert_hidden(server, [caught.value])
    assert server.password not in caplog.text


@pytest.mark.parametrize(
    "location",
    [
        "fanout.db",
        "",
        "//u:secret@h/d?pool=0",
        "//u:secret@h/d?pool=x",
        "//u:secret@h/d?schema=Big",
        "//u:secret@h/d?schema=pg_x",
        "//u:secret@h/d?prepared=maybe",
        "//u:secret@h/d?nothing",
        "//u:secret@[h/d",
    ],
)
def test_wrong_url(location: str) -> None:
    with pytest.raises(ConfigurationError, match="storage") as caught:
        make(location, context())
    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_times_out(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call never hangs, whoever holds the lock or the connections, and says which of the two it is."""
    name = await databases.lend()
    location = databases.server.url(name).partition(":")[2]
    async with PostgresStorage(location, context()) as storage, PostgresStorage(location, context()) as other:
        connection = await other._pool.connect()
        await connection.execute("BEGIN; LOCK TABLE address")
        monkeypatch.setattr(operations, "_LIMIT", 0.3)
        with pytest.raises(StorageError, match=r"did not answer within 0 s: see its locks \(pg_locks\)"):
            await storage.register([device("alice", "1")], T0)
        await connection.execute("ROLLBACK")
        connection.terminate()
        async with asyncio.timeout(120), contextlib.AsyncExitStack() as stack:
            for _ in range(storage._pool.options.pool):
                stack.callback(storage._pool.give, await storage._pool.take(), sound=True)
            with pytest.raises(StorageError, match=r"other calls have each of its 4 connections; .*\?pool="):
                await storage.register([device("alice", "1")], T0)
        monkeypatch.undo()
        assert len(await storage.register([device("alice", "1")], T0)) == 1
    await databases.give_back(name)
