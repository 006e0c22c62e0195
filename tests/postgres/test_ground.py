"""Databases as other people set them up: encodings, settings, poolers; and one that is another than before."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from fanout.core.model import Notification, Target
from fanout.core.records import EndpointFilter
from fanout.errors import StorageError, StorageRefused, StorageUnavailable
from fanout.plugin import StorageContext
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.greeting import Greeting, Identity, judge
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage_kit import T0, device, post, standing, submission
from fanout_kit.postgres import MISSING, PostgresServer, find_programs

from .bouncer import bouncer
from .conftest import Databases
from .test_connection import context
from .test_trouble import Clock, worker

pytestmark = [pytest.mark.anyio, pytest.mark.external]

HI = Notification(title="Hi")


def at(url: str) -> PostgresStorage:
    return PostgresStorage(url.partition(":")[2], StorageContext(clock=Clock()))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252"])
async def test_an_encoding_that_does_not_hold_every_text_is_refused(server: PostgresServer, encoding: str) -> None:
    name = f"e_{encoding.lower()}"
    server.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(StorageRefused, match=rf"encoding {encoding}.*UTF8"):
        async with at(server.url(name)):
            pass
    server.drop(name)


SETTINGS = {
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "default_transaction_isolation": "serializable",
    "backslash_quote": "off",
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY",
    "search_path": "nowhere",
    "synchronous_commit": "off",
    "statement_timeout": "1ms",
    "array_nulls": "off",
    "extra_float_digits": "-5",
    "row_security": "off",
}


@pytest.mark.parametrize("prepared", ["on", "off"])
async def test_whatever_is_set_for_the_database_all_of_it_works(server: PostgresServer, prepared: str) -> None:
    name = server.fresh()
    # Behind a pooler BEGIN and what is told after COMMIT run under the database's own limit, which a single statement
    # must be able to keep.
    for key, value in (SETTINGS if prepared == "on" else SETTINGS | {"statement_timeout": "10s"}).items():
        if key != "search_path":
            value = f"'{value}'"
        server.sql(f"ALTER DATABASE {name} SET {key} = {value}")
    async with worker(server.url(name, prepared=prepared)) as (engine, transport):
        odd = "back\\slash 'quote' ünïcode ☃ \U0001f600"
        await engine.endpoints.register(user=odd, binding="push", address="odd", tags=["täg"])
        status = await (await engine.send(Notification(title=odd), Target.user(odd))).wait(60)
        assert status.counts["accepted"] == 1
        assert (await (await engine.send(HI, "topic:täg")).wait(60)).counts["accepted"] == 1
        assert [s.address for s in transport.sends] == ["odd", "odd"]
        assert engine.trouble.problem == ""
    async with at(server.url(name, prepared=prepared)) as storage:
        assert await storage._read(_limit) == await storage._write(_limit) == "15s"


async def _limit(db: Db) -> str:
    return str(await db.value("SELECT current_setting('statement_timeout')"))


@pytest.mark.parametrize("of", ["DATABASE {name}", "ROLE reader"])
async def test_a_read_only_default_is_called_what_it_is(server: PostgresServer, of: str) -> None:
    name = server.fresh()
    server.sql(
        "DO $$ BEGIN CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN END $$"
    )
    server.sql(f"ALTER {of.format(name=name)} SET default_transaction_read_only = on")
    try:
        with pytest.raises(StorageRefused, match="default_transaction_read_only"):
            async with at(server.url(name, user="reader", password="x")):
                pass
    finally:
        server.sql("ALTER ROLE reader RESET ALL")


async def test_a_default_that_becomes_read_only_is_named_and_passes(server: PostgresServer) -> None:
    name = server.fresh()
    async with worker(server.url(name)) as (engine, transport):
        server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        said = []
        while not said or "read-only" not in said[-1]:
            with pytest.raises(StorageUnavailable) as refused:
                await engine.send(HI, "user:alice")
            said.append(str(refused.value))
            assert len(said) <= engine.storage._pool.options.pool + 1, "each connection may meet its own end once"
        server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        while True:
            try:
                receipt = await engine.send(HI, "user:alice")
                break
            except StorageUnavailable:
                pass
        assert (await receipt.wait(60)).counts["accepted"] == 1


# -- durable before yes


@pytest.fixture
def lazy() -> Iterator[PostgresServer]:
    """A server whose operator has switched waiting for the disk off, and whose own writer does not make up for it."""
    if find_programs() is None:
        pytest.skip(MISSING)
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
    with PostgresServer.start(fsync=True, settings=settings) as server:
        yield server


@pytest.mark.parametrize(
    "prepared",
    [
        "on",
        pytest.param(
            "off", marks=pytest.mark.long("the same without what is prepared; test_behind_a_pooler is the short form")
        ),
    ],
)
async def test_what_is_acknowledged_survives_a_crash_though_synchronous_commit_is_off(
    lazy: PostgresServer, prepared: str
) -> None:
    location = lazy.url(lazy.fresh(), prepared=prepared).partition(":")[2]
    async with PostgresStorage(location, context(), believe_callers=True) as storage:
        assert any("synchronous_commit" in remark for remark in storage.remarks)
        subs = [submission() for _ in range(40)]
        await storage.register([device("alice", "1")], T0)
        for sub in subs:
            await storage.put([sub], T0)
        await asyncio.to_thread(lazy.stop, "immediate")
        await asyncio.to_thread(lazy.up)
        assert [sub.id for sub in subs if await storage.status(sub.id, T0) is None] == []


async def test_another_value_of_synchronous_commit_stays_the_operators(databases: Databases) -> None:
    name = await databases.lend()
    databases.server.sql(f"ALTER DATABASE {name} SET synchronous_commit = 'remote_write'")
    async with at(databases.server.url(name)) as storage:
        told = await storage._database.write(lambda db: db.value("SELECT current_setting('synchronous_commit')"))
        assert told == "remote_write"
        assert storage.remarks == []
    databases.server.sql(f"ALTER DATABASE {name} RESET synchronous_commit")
    await databases.give_back(name)


# -- poolers


async def test_a_pooler_in_statement_mode_is_named(server: PostgresServer) -> None:
    """It ends each connection that begins a transaction, and gives no reason that the driver hands on."""
    name = server.fresh()
    with bouncer(server, "statement") as port:
        url = server.url(name, prepared="off").replace(f":{server.port}/", f":{port}/")
        with pytest.raises(StorageUnavailable, match="pool_mode = statement"):
            async with PostgresStorage(url.partition(":")[2], StorageContext(clock=Clock())):
                pass


@pytest.mark.parametrize("settings", [{}, {"ignore_startup_parameters": "IGNORED"}], ids=["refusing", "ignoring"])
@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_pooler_is_found_out_behind_the_plain_url(
    server: PostgresServer, mode: str, settings: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    from fanout.storage.postgres.greeting import SETTINGS as OURS

    name = server.fresh()
    chosen = {key: ",".join([*OURS, "search_path", "extra_float_digits"]) for key in settings}
    with bouncer(server, mode, **chosen) as port, caplog.at_level(logging.WARNING, "fanout.postgres"):
        url = server.url(name).replace(f":{server.port}/", f":{port}/")
        async with worker(url) as (engine, transport):
            receipts = await asyncio.gather(*(engine.send(HI, "user:alice") for _ in range(40)))
            for receipt in receipts:
                assert (await receipt.wait(60)).counts["accepted"] == 1
            assert len(transport.sends) == 40
            assert engine.trouble.problem == ""
        assert "prepared=off" in caplog.text
        direct = await asyncpg.connect(server.url(name))
        assert await direct.fetchval("SELECT count(*) FROM fanout.notification") == 40
        await direct.close()


# -- another database than before


async def test_a_database_made_anew_from_a_dump_is_another_one(server: PostgresServer) -> None:
    """Numbers of apps and bindings are given to others there, and its transactions count from lower numbers."""
    old, new = server.fresh(), server.fresh()
    async with at(server.url(new)) as storage:
        await storage.register([device("zoe", "9", app="theirs"), device("zoe", "8", app="theirs")], T0)
    async with at(server.url(old)) as storage:
        await storage.register([device("alice", "1", app="ours")], T0)
        assert await storage.count_endpoints("ours", Target.all()) == {"apns": 1}
        before = storage.incarnation
        server.sql(f"ALTER DATABASE {old} ALLOW_CONNECTIONS false")
        server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{old}'")
        server.sql(f"ALTER DATABASE {old} RENAME TO {old}_gone")
        server.sql(f"ALTER DATABASE {new} RENAME TO {old}")
        assert await _while_unavailable(lambda: storage.count_endpoints("ours", Target.all())) == {}
        assert storage.incarnation > before
        await storage.register([device("bob", "2", app="ours")], T0)
        assert await storage.count_endpoints("theirs", Target.all()) == {"apns": 2}
        assert [e.user for e in await storage.list_endpoints(EndpointFilter(app="ours"))] == ["bob"]


async def _while_unavailable(call: Callable[[], Any]) -> Any:
    while True:
        try:
            return await call()
        except StorageError:
            await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["schema", "tables"])
async def test_tables_made_anew_under_connections_that_stay_are_noticed(server: PostgresServer, how: str) -> None:
    """Neither identifier nor timeline says so: the number of changes that only grows does, and the schema's own."""
    name = server.fresh()
    async with at(server.url(name)) as storage:
        await storage.register([device("alice", str(n), app="ours") for n in range(5)], T0)
        for n in range(40):
            await storage.register([device("alice", str(n), app="ours")], T0)
        await storage.changes()
        server.sql("ALTER SCHEMA fanout RENAME TO gone", name)
        async with at(server.url(name)) as other:
            await other.register([device("zoe", "9", app="theirs")], T0)
        if how == "tables":
            assert await _while_unavailable(storage.changes) > 0
        else:
            server.sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
            )
        assert await _while_unavailable(lambda: storage.count_endpoints("ours", Target.all())) == {}
        assert storage.incarnation == 1
        await storage.register([device("bob", "2", app="ours")], T0)
        assert await storage.count_endpoints("theirs", Target.all()) == {"apns": 1}


async def test_an_inbox_whose_transactions_count_lower_is_emptied(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark below which nothing is left is of the old server: what is enqueued in the new one stands below it."""
    monkeypatch.setattr("fanout.engine.put_notifier._POLL", 0.05)  # a mark that is wrong is seen by the look every 30 s
    name = server.fresh()
    async with worker(server.url(name)) as (engine, transport):
        inbox: Any = engine.storage.inbox
        await inbox.due(["default"], time.time())
        assert inbox._low
        inbox._low = 10**12
        connection = await asyncpg.connect(server.url(name))
        async with connection.transaction():
            receipt = await engine.send(HI, "user:alice", connection=connection)
        await connection.close()
        assert (await receipt.wait(60)).counts["accepted"] == 1


async def test_a_promoted_standby_is_another_database(server: PostgresServer) -> None:
    """By its timeline, told by the name of the log file: right at once."""
    connection = await asyncpg.connect(server.url("postgres"))
    (name, told) = await connection.fetchrow(
        "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), (SELECT timeline_id FROM pg_control_checkpoint())"
    )
    await connection.close()
    assert int(name, 16) == told


def test_what_a_greeting_says_is_judged_purely() -> None:
    good = Greeting(Identity("1", "00000001", 5, 6), 1.0, "UTF8", "on", False, False, "force_generic_plan")
    assert judge(good, "x") is None
    assert isinstance(judge(replace(good, encoding="LATIN9"), "x"), StorageRefused)
    assert isinstance(judge(replace(good, read_only=True), "x"), StorageRefused)
    standby = judge(replace(good, standby=True, read_only=True), "x")
    assert standby is not None
    assert not isinstance(standby, StorageRefused)
    assert "standbys" in str(standby)


async def test_a_role_that_may_not_ask_who_the_server_is_works_all_the_same(server: PostgresServer) -> None:
    name = server.fresh()
    server.sql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", name)
    server.sql("DO $$ BEGIN CREATE ROLE plain LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN END $$")
    server.sql(f"ALTER DATABASE {name} OWNER TO plain")
    async with at(server.url(name, user="plain", password="x")) as storage:
        assert storage._pool.last is not None
        assert storage._pool.last.identity.system == ""
        sub = submission()
        await storage.register([device("alice", "1")], T0)
        await post(storage, sub)
        assert (await standing(storage, sub.id)).counts["pending"] == 1
