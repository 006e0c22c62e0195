"""`engine.send(connection=…)`: what the receipt says before, at and after the commit, and that workers deliver what was
committed."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fanout.core.model import Notification, Target
from fanout.errors import Conflict, NotFound, UsageError
from fanout.plugin import Address, Sealer, StorageContext
from fanout.storage.postgres.store import PostgresStorage, make
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.scripted import ScriptedTransport
from tests.engine.rig import FAST, SystemClock, register, running
from tests.postgres.conftest import Databases
from tests.postgres.hosts import begin

pytestmark = [pytest.mark.anyio, pytest.mark.external]

CONTEXT = StorageContext(clock=SystemClock())


class Database:
    def __init__(self, url: str) -> None:
        self.url = url

    def storage(self, context: StorageContext = CONTEXT) -> PostgresStorage:
        return make(self.url.partition(":")[2], context)


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[Database]:
    name = await databases.lend()
    yield Database(databases.server.url(name))
    await databases.give_back(name)


async def test_the_receipt_is_truthful_at_every_moment(database: Database) -> None:
    async with running(storage=database.storage()) as (engine, transport):
        await register(engine, "alice", "phone", "tablet")
        async with begin("asyncpg", database.url) as transaction:
            receipt = await engine.send(Notification(title="x"), "user:alice", connection=transaction.connection)
            assert (receipt.total, receipt.replayed) == (None, False)
            for call in (receipt.status(), receipt.wait(60), receipt.cancel()):
                with pytest.raises(NotFound):
                    await call
            assert transport.sends == []
        assert (await receipt.wait(60)).counts["accepted"] == 2
        assert {sent.notification for sent in transport.sends} == {receipt.id}
        again = await engine.send(Notification(title="y"), "user:alice", idempotency_key="k")
        async with begin("sqlalchemy-asyncpg-session", database.url) as transaction:
            same = await engine.send(
                Notification(title="y"), "user:alice", idempotency_key="k", connection=transaction.connection
            )
            assert (same.id, same.replayed) == (again.id, True)
            with pytest.raises(Conflict):
                await engine.send(
                    Notification(title="z"), "user:alice", idempotency_key="k", connection=transaction.connection
                )


async def test_who_waits_before_a_worker_is_there_is_told_when_it_has_ended(database: Database) -> None:
    async with running(storage=database.storage(), role="submit") as (host, _):
        await register(host, "alice", "phone")
        async with begin("psycopg-async", database.url) as transaction:
            receipt = await host.send(Notification(title="x"), "user:alice", connection=transaction.connection)
        assert (await receipt.status()).state == "expanding"
        waiting = asyncio.create_task(receipt.wait(60))
        async with running(storage=database.storage()):
            assert (await waiting).counts["accepted"] == 1


async def test_what_is_cancelled_before_it_is_taken_is_never_sent(database: Database) -> None:
    async with running(storage=database.storage(), role="submit") as (host, _):
        await register(host, "alice", "phone")
        async with begin("asyncpg", database.url) as transaction:
            receipt = await host.send(Notification(title="x"), "user:alice", connection=transaction.connection)
            other = await host.send(Notification(title="y"), "user:alice", connection=transaction.connection)
        assert (await receipt.cancel()).state == "cancelled"
        async with running(storage=database.storage()) as (_, transport):
            assert (await other.wait(60)).counts["accepted"] == 1
            assert (await receipt.wait(60)).state == "cancelled"
            assert {sent.notification for sent in transport.sends} == {other.id}


async def test_a_message_that_turns_out_too_large_is_an_event(database: Database) -> None:
    narrow = {("default", "push"): ScriptedTransport(), ("default", "narrow"): ScriptedTransport(limit=40)}
    async with running(storage=database.storage(), transports=narrow) as (engine, _):
        await register(engine, "alice", "phone")
        await register(engine, "bob", "watch", binding="narrow")
        long = Notification(title="x" * 100)
        async with begin("asyncpg", database.url) as transaction:
            good, bad = [
                await engine.send(long, f"user:{user}", connection=transaction.connection) for user in ("alice", "bob")
            ]
        assert (await good.wait(60)).counts["accepted"] == 1
        status = await bad.wait(60)
        assert (status.state, status.total) == ("cancelled", 0)
        (reason,) = status.reasons["cancelled"]
        events = [event async for event in engine.events() if event.kind == "notification.refused"]
        assert [event.data for event in events] == [{"notification": bad.id, "reason": reason}]
        assert "40" in reason


async def test_sealed_addresses_stay_out_of_the_inbox(database: Database) -> None:
    secret = "secret" + os.urandom(8).hex()
    context = dataclasses.replace(CONTEXT, sealer=Sealer([os.urandom(32)]))
    target = Target("addresses", binding="push", addresses=(Address(secret),))
    async with running(storage=database.storage(context), role="submit") as (host, _):
        async with begin("asyncpg", database.url) as transaction:
            receipt = await host.send(
                Notification(title="x"), target, idempotency_key="k", connection=transaction.connection
            )
        connection = await asyncpg.connect(database.url)
        shown: list[Any] = [
            await connection.fetch(f"SELECT * FROM fanout.{table}") for table in ("inbox", "endpoint", "idempotency")
        ]
        await connection.close()
        assert secret not in repr(shown)
        async with running(storage=database.storage(context), policy=FAST) as (engine, transport):
            assert (await receipt.wait(60)).counts["accepted"] == 1
            assert [sent.address for sent in transport.sends] == [secret]
            again = await engine.send(Notification(title="x"), target, idempotency_key="k")
            assert (again.id, again.replayed) == (receipt.id, True)


async def test_a_storage_that_is_nobody_elses_says_so(tmp_path: Path) -> None:
    for storage in (MemoryStorage("", CONTEXT), SqliteStorage(str(tmp_path / "x.db"), CONTEXT)):
        async with running(storage=storage, role="submit") as (engine, _):
            with pytest.raises(UsageError, match="postgresql"):
                await engine.send(Notification(title="x"), "user:alice", connection=object())
