"""What processes tell one another: an idle one asks next to nothing, and hears of work, ends and cancellations at
once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from fanout.core.model import Notification
from fanout.engine import Engine, EngineOptions
from fanout.engine.engine import Role
from fanout.plugin import StorageContext
from fanout.storage.postgres import listening, operations
from fanout.storage.postgres.operations import Database
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.scripted import ScriptedTransport

from .conftest import Databases

pytestmark = [pytest.mark.anyio, pytest.mark.external]
HI = Notification(title="Hi")


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


@pytest.fixture
async def url(databases: Databases) -> AsyncIterator[str]:
    """The address of an empty database."""
    name = await databases.lend()
    yield databases.server.url(name)
    await databases.give_back(name)


@asynccontextmanager
async def engine(url: str, role: Role) -> AsyncIterator[Engine]:
    storage = PostgresStorage(url.partition(":")[2], StorageContext(clock=Clock()))
    transports = {("default", "push"): ScriptedTransport()}
    async with Engine(storage, transports, EngineOptions(clock=Clock(), rng=random.Random(), role=role)) as made:
        yield made


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.005)


def heard(made: Engine) -> bool:
    found = made.storage._database.listener  # type: ignore[attr-defined]
    return bool(found is not None and found.listening)


async def test_another_process_is_told_of_work_and_of_its_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_UNTOLD", 3600.0)
    async with engine(url, "submit") as caller, engine(url, "work") as worker:
        await until(lambda: heard(caller) and heard(worker))
        await caller.endpoints.register(user="alice", binding="push", address="phone")
        for _ in range(3):
            receipt = await caller.send(HI, "user:alice")
            assert (await receipt.wait(60)).counts["accepted"] == 1, "nobody looks by himself for an hour"


async def test_a_connection_that_is_lost_is_made_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_UNTOLD", 3600.0)
    monkeypatch.setattr(listening, "_AGAIN", (0.01, 0.1))
    async with engine(url, "submit") as caller, engine(url, "work") as worker:
        await until(lambda: heard(worker))
        await caller.endpoints.register(user="alice", binding="push", address="phone")
        listener = worker.storage._database.listener  # type: ignore[attr-defined]
        lost = listener._connection.get_server_pid()
        committed, listen = asyncio.Event(), listener._listen_once

        async def listen_after_the_commit() -> None:
            await committed.wait()
            await listen()

        listener._listen_once = listen_after_the_commit
        other = await asyncpg.connect(url)
        try:
            await other.execute("SELECT pg_terminate_backend($1)", lost)
        finally:
            await other.close()
        await until(lambda: not heard(worker))
        # A commit that is made while the worker does not listen is looked for once it does.
        receipt = await caller.send(HI, "user:alice")
        committed.set()
        assert (await receipt.wait(60)).counts["accepted"] == 1
        await until(lambda: heard(worker))
        assert listener._connection.get_server_pid() != lost


@pytest.mark.parametrize(("more", "bound"), [("", 5.0), ("?prepared=off", 12.0)])
async def test_an_idle_process_asks_next_to_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, more: str, bound: float
) -> None:
    """Operations on the database a second, of a worker with nothing to do."""
    asked: Counter[str] = Counter()
    async with engine(url + more, "work") as worker:
        await until(lambda: heard(worker) or more)
        limited = Database._limited

        async def counted(self: Database, call: Any) -> Any:
            asked[call.function.__name__] += 1
            return await limited(self, call)

        monkeypatch.setattr(Database, "_limited", counted)
        await until(lambda: asked["expirable"] > 1)  # what each loop asks at its start has been asked
        asked.clear()
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 1.2)
        took, asked = time.monotonic() - began, asked.copy()  # closing asks too, and takes its time
    # What comes once in a while may just have come.
    assert asked["_changed"] <= (took if not more else 10 * took) + 1, asked
    assert sum(asked.values()) <= bound * took + 4, asked


async def test_a_storage_that_no_engine_uses_listens_to_nothing(url: str) -> None:
    location = url.partition(":")[2]
    async with (
        PostgresStorage(location, StorageContext(clock=Clock())) as storage,
        PostgresStorage(location, StorageContext(clock=Clock())) as other,
    ):
        before = await storage.changes()
        await other.post_gates("w", [], time.time())
        assert await storage.changes() != before, "it asks"
        assert storage._database.listener is None


async def test_an_inbox_in_use_is_looked_at_ten_times_a_second(url: str) -> None:
    """A host's transaction tells nothing: it would make the host's commits wait for one another."""
    async with engine(url, "work") as worker:
        await until(lambda: heard(worker))
        await worker.endpoints.register(user="alice", binding="push", address="phone")
        connection = await asyncpg.connect(url)
        try:
            for _ in range(2):
                async with connection.transaction():
                    receipt = await worker.send(HI, "user:alice", connection=connection)
                assert (await receipt.wait(60)).counts["accepted"] == 1
                assert worker.storage._database.used, "known from the first on"  # type: ignore[attr-defined]
        finally:
            await connection.close()


async def test_a_commit_of_others_is_not_taken_for_one_of_ours_that_was_under_way(url: str) -> None:
    """The server counts ours before its answer is here. A look meanwhile counted it among the others', and the next
    commit of others came to the same number: nothing heard of it until the look of half a minute later."""
    location = url.partition(":")[2]
    async with (
        PostgresStorage(location, StorageContext(clock=Clock())) as ours,
        PostgresStorage(location, StorageContext(clock=Clock())) as theirs,
    ):
        end, held, go_on = ours._database._end, asyncio.Event(), asyncio.Event()

        async def slow(connection: Any, last: str) -> None:
            await end(connection, last)
            held.set()
            await go_on.wait()

        ours._database._end = slow  # type: ignore[method-assign]
        await ours.changes()
        writing = asyncio.create_task(ours.pause_binding("default", "push", time.time()))
        await held.wait()
        await ours.changes()
        before = await ours.changes(others=True)
        go_on.set()
        await writing
        seen = await ours.changes()
        await theirs.pause_binding("default", "other", time.time())
        assert await ours.changes() != seen
        assert await ours.changes(others=True) != before


async def test_a_commit_under_way_that_tells_nothing_is_taken_for_no_commit_of_others(url: str) -> None:
    """A lease that finds nothing: at each such moment a worker would look at what others have done."""
    async with PostgresStorage(url.partition(":")[2], StorageContext(clock=Clock())) as storage:
        await storage.pause_binding("default", "push", time.time())
        end, held, go_on = storage._database._end, asyncio.Event(), asyncio.Event()

        async def slow(connection: Any, last: str) -> None:
            held.set()
            await go_on.wait()
            await end(connection, last)

        storage._database._end = slow  # type: ignore[method-assign]
        now = time.time()
        leasing = asyncio.create_task(storage.lease("w", "default", "push", 1, limit=1, now=now, until=now + 30))
        await held.wait()
        before = await storage.changes(others=True)
        go_on.set()
        assert await leasing == []
        assert await storage.changes(others=True) == before
