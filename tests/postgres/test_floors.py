"""From where on due chunks are looked for, as an old transaction makes the looks long."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from fanout.core.records import Settlement
from fanout.plugin import StorageContext
from fanout.storage.postgres import floors
from fanout.storage.postgres.floors import BEGINNING, Floors
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, lease_all, settle_all, submission
from fanout_kit.postgres import PostgresServer
from tests.postgres.conftest import Databases, opened


def test_where_little_is_stepped_over_a_look_is_whole() -> None:
    made = Floors()
    assert made.counts(1, 0, 0.0)
    made.counted(1, 0, 0.0, 1999)
    assert made.floor(1, 0, T0, 1.0) == BEGINNING
    assert not made.counts(1, 0, 4.9)
    assert made.counts(1, 0, 5.0)


def test_where_much_is_most_looks_begin_just_before_now() -> None:
    made = Floors()
    made.counted(1, 0, 0.0, 2000)
    assert made.floor(1, 0, T0, 4.9) == T0 - 5
    assert made.floor(1, 1, T0, 4.9) == BEGINNING, "another lane is another part of the index"
    assert made.floor(1, 0, T0, 5.0) == BEGINNING, "what is further back is not forgotten"
    made.counted(1, 0, 5.0, 3)
    assert made.floor(1, 0, T0, 5.1) == BEGINNING, "and when the old transaction is gone, all looks are whole"


@pytest.mark.anyio
@pytest.mark.external
@pytest.mark.parametrize("analyzed", [False, True])
async def test_an_old_transaction_is_noticed(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, analyzed: bool
) -> None:
    """What was leased before is stepped over, and what is found is right, hasty or not; `analyzed`, by statistics of a
    time at which nothing was open."""
    monkeypatch.setattr(floors, "_MANY", 50)
    monkeypatch.setattr(floors, "_EVERY", 0.0)
    name = await databases.lend()
    old = await asyncpg.connect(databases.server.url(name), server_settings={"search_path": "fanout"})
    try:
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await old.fetchval("SELECT count(*) FROM chunk")
        async with opened(databases.server, name, StorageContext(clock=VirtualClock(T0))) as storage:
            known = storage._database._known.floors
            await storage.register([device("alice", "1")], T0)
            await storage.put([submission() for _ in range(60)], T0)
            chunks = await lease_all(storage)
            assert len(chunks) == 60
            await storage.settle([Settlement(c.id, c.epoch, {("accepted", ""): [0]}) for c in chunks], T0)
            if analyzed:
                await asyncio.to_thread(databases.server.sql, "ANALYZE fanout.chunk", name)
            await storage.put([submission(now=T0 + 1)], T0 + 1)
            assert len(await lease_all(storage, T0 + 1)) == 1
            ((_, place),) = known._places.items()
            assert place.many, "sixty entries were stepped over"
            assert await old.fetchval("SELECT count(*) FROM chunk") == 0, "the transaction is as old as before"
            place.next_at = float("inf")
            await storage.put([submission(now=T0 + 2), submission(now=T0 + 30)], T0 + 30)
            hasty = await lease_all(storage, T0 + 32)
            place.next_at = BEGINNING
            whole = await lease_all(storage, T0 + 32)
            assert (len(hasty), len(whole)) == (2, 1), "what is older than a few seconds is for a whole look"
            await settle_all(storage, [*hasty, *whole], T0 + 32)
    finally:
        await old.close()
        await databases.give_back(name)


@pytest.mark.anyio
@pytest.mark.external
async def test_what_earlier_looks_stepped_over_is_not_counted_again(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's count goes on from transaction to transaction: a busy worker would take it for an old
    transaction."""
    counted: list[int] = []
    monkeypatch.setattr(Floors, "counts", lambda *_: True)
    monkeypatch.setattr(Floors, "counted", lambda *arguments: counted.append(arguments[-1]))
    name = server.fresh()  # without entries of former tests
    try:
        async with opened(server, name, StorageContext(clock=VirtualClock(T0)), pool=1) as storage:
            await storage.register([device("alice", "1")], T0)
            await storage.put([submission() for _ in range(40)], T0)
            await settle_all(storage, await lease_all(storage, T0), T0)
            for _ in range(3):
                assert await lease_all(storage, T0 + 1) == []
            assert max(counted) <= 40, counted
    finally:
        server.drop(name)
