"""What an operator does to a database while a worker runs: it passes, is named meanwhile, and all that was accepted is
delivered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from fanout.core.model import Notification, Target
from fanout.engine import Engine, EngineOptions
from fanout.errors import ContentRefused, StorageError, StorageRefused, StorageUnavailable
from fanout.plugin import Policy, Rejected, StorageContext
from fanout.storage.postgres import pool
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.scripted import ScriptedTransport
from fanout.testing.storage_kit import T0, device, submission
from fanout_kit.postgres import PostgresServer

from .conftest import Databases
from .test_connection import context

pytestmark = [pytest.mark.anyio, pytest.mark.external]

HI = Notification(title="Hi")


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_BACKOFF", (0.01, 0.05))


class Place:
    """A database of its own, with a role of its own that owns it."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.name = server.fresh()
        self.role = f"role_{self.name}"
        server.sql(f"CREATE ROLE {self.role} LOGIN PASSWORD 'first'")
        server.sql(f"ALTER DATABASE {self.name} OWNER TO {self.role}")

    def url(self, **options: object) -> str:
        return self.server.url(self.name, user=self.role, password="first", **options)

    async def sql(self, statement: str, database: str = "postgres") -> None:
        """In a thread: an engine of this loop may be in a transaction whose locks the statement needs."""
        await asyncio.to_thread(self.server.sql, statement.format(db=self.name, role=self.role), database)

    async def cut(self) -> None:
        await self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[tuple[Engine, ScriptedTransport]]:
    transport = ScriptedTransport()
    storage = PostgresStorage(url.partition(":")[2], StorageContext(clock=Clock()))
    engine = Engine(
        storage,
        {("default", "push"): transport},
        EngineOptions(clock=Clock(), rng=random.Random(1), policy=Policy(backoff_base=0.02, request_timeout=5.0)),
    )
    async with engine:
        await engine.endpoints.register(user="alice", binding="push", address="phone")
        yield engine, transport


FAULTS = {
    "password": ("ALTER ROLE {role} PASSWORD 'second'", "ALTER ROLE {role} PASSWORD 'first'", "refused"),
    "nologin": ("ALTER ROLE {role} NOLOGIN", "ALTER ROLE {role} LOGIN", "refused"),
    "no connections": (
        "ALTER DATABASE {db} ALLOW_CONNECTIONS false",
        "ALTER DATABASE {db} ALLOW_CONNECTIONS true",
        "unavailable",
    ),
    "limit": ("ALTER ROLE {role} CONNECTION LIMIT 0", "ALTER ROLE {role} CONNECTION LIMIT -1", "unavailable"),
    "renamed": ("ALTER DATABASE {db} RENAME TO {db}_away", "ALTER DATABASE {db}_away RENAME TO {db}", "refused"),
}


async def test_rows_that_a_policy_hides_do_not_pass_for_missing_ones(server: PostgresServer) -> None:
    """A lease without its rows of `audience` ended deliveries as dead, an endpoint that is hidden as gone."""
    place = Place(server)
    every = (
        "DO $$ DECLARE t text; BEGIN FOR t IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'fanout' "
        "LOOP EXECUTE 'ALTER TABLE ' || t || ' {}'; END LOOP; END $$"
    )
    async with PostgresStorage(place.url().partition(":")[2], context()) as storage:
        await storage.register([device("alice", "1")], T0)
        sub = submission()
        await storage.put([sub], T0)
        server.sql(every.format("ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"), place.name)
        for call in (
            lambda: storage.status(sub.id, T0),
            lambda: storage.lease("w1", "default", "apns", 1, limit=10, now=T0, until=T0 + 30),
            lambda: storage.put([submission()], T0),
            storage.outstanding,
        ):
            with pytest.raises(StorageUnavailable, match=r"row-level security.*BYPASSRLS"):
                await call()
        server.sql(every.format("NO FORCE ROW LEVEL SECURITY"), place.name)
        assert len(await storage.lease("w1", "default", "apns", 1, limit=10, now=T0, until=T0 + 30)) == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_way_in_that_is_shut_for_a_while(server: PostgresServer, fault: str) -> None:
    shut, back, kind = FAULTS[fault]
    place = Place(server)
    async with worker(place.url()) as (engine, transport):
        await (await engine.send(HI, "user:alice")).wait(30)
        if fault == "renamed":
            await place.sql("ALTER DATABASE {db} ALLOW_CONNECTIONS false")
            await _renamed(place, shut)
        else:
            await place.sql(shut)
            await place.cut()
        with pytest.raises(StorageUnavailable):
            await engine.send(HI, "user:alice")
        while engine.trouble.kind != kind:
            await _turn(engine)
        assert engine.fault is None
        await place.sql(back)
        if fault == "renamed":
            await place.sql("ALTER DATABASE {db} ALLOW_CONNECTIONS true")
        await _delivered(engine, transport)


async def _renamed(place: Place, statement: str) -> None:
    """No session may be there while it is renamed, and the worker comes back at once."""
    while True:
        await place.cut()
        try:
            await place.sql(statement)
        except RuntimeError:
            continue
        place.server.sql(f"ALTER DATABASE {place.name}_away ALLOW_CONNECTIONS true")
        return


async def _turn(engine: Engine) -> None:
    try:
        await engine.storage.changes()
    except StorageError:
        await asyncio.sleep(0)


async def _delivered(engine: Engine, transport: ScriptedTransport) -> None:
    """As a caller does who was told to try again."""
    before = len(transport.sends)
    while True:
        try:
            receipt = await engine.send(HI, "user:alice")
            break
        except StorageUnavailable:
            pass
    assert (await receipt.wait(60)).counts["accepted"] == 1
    assert len(transport.sends) == before + 1
    assert engine.fault is None


RIGHTS = {
    "table": ("REVOKE ALL ON fanout.notification FROM {role}", "GRANT ALL ON fanout.notification TO {role}"),
    "sequence": ("REVOKE ALL ON fanout.changed FROM {role}", "GRANT ALL ON fanout.changed TO {role}"),
    "schema": ("REVOKE ALL ON SCHEMA fanout FROM {role}", "GRANT ALL ON SCHEMA fanout TO {role}"),
    "renamed table": ("ALTER TABLE fanout.chunk RENAME TO away", "ALTER TABLE fanout.away RENAME TO chunk"),
    "renamed schema": ("ALTER SCHEMA fanout RENAME TO away", "ALTER SCHEMA away RENAME TO fanout"),
}


@pytest.mark.parametrize(
    "prepared",
    [
        "on",
        pytest.param(
            "off", marks=pytest.mark.long("the same without what is prepared; test_behind_a_pooler is the short form")
        ),
    ],
)
@pytest.mark.parametrize("right", RIGHTS)
async def test_a_right_that_is_taken_for_a_while(server: PostgresServer, right: str, prepared: str) -> None:
    taken, back = RIGHTS[right]
    place = Place(server)
    async with worker(place.url(prepared=prepared)) as (engine, transport):
        await (await engine.send(HI, "user:alice")).wait(30)
        await place.sql(taken, place.name)
        if right != "sequence":
            with pytest.raises(StorageUnavailable):
                await engine.send(HI, "user:alice")
        while not engine.trouble.problem:
            await _turn(engine)
        assert engine.fault is None
        await place.sql(back, place.name)
        await _delivered(engine, transport)


async def test_at_the_start_it_is_refused_with_a_sentence(server: PostgresServer) -> None:
    place = Place(server)
    await place.sql("ALTER ROLE {role} NOLOGIN")
    with pytest.raises(StorageRefused, match="does not let this user in"):
        async with worker(place.url()):
            pass


async def test_a_role_that_owns_an_empty_schema_and_may_not_make_one(server: PostgresServer) -> None:
    place = Place(server)
    await place.sql("ALTER DATABASE {db} OWNER TO fanout")
    await place.sql("REVOKE ALL ON DATABASE {db} FROM PUBLIC; GRANT CONNECT ON DATABASE {db} TO {role}")
    await place.sql("CREATE SCHEMA fanout AUTHORIZATION {role}", place.name)
    async with worker(place.url()) as (engine, transport):
        await _delivered(engine, transport)


async def test_calls_that_are_given_up_keep_their_connections_and_no_more_are_made(server: PostgresServer) -> None:
    """The server goes on waiting for a lock after its client has gone: other programs of the server need those
    places."""
    place = Place(server)
    async with PostgresStorage(place.url(pool=2).partition(":")[2], StorageContext(clock=Clock())) as storage:
        await storage.register([device("alice", "1")], time.time())
        holder = await asyncpg.connect(place.server.url(place.name))
        observer = await asyncpg.connect(place.server.url(place.name))
        await holder.execute("BEGIN; LOCK TABLE fanout.endpoint")
        waits = "SELECT array_agg(pid) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'"
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
        seen: set[int] = set()
        most = 0
        for number in range(5):
            call = asyncio.ensure_future(storage.register([device("alice", str(number))], time.time()))
            while not (waiting := set(await observer.fetchval(waits, place.role) or ()) - seen):
                await asyncio.sleep(0)
            seen |= waiting
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            most = max(most, await observer.fetchval(sessions, place.role))
        assert most <= 2
        await holder.close()
        await observer.close()
        await storage.register([device("alice", "2")], time.time())


async def test_a_commit_that_is_ended_before_the_others_are_told_is_looked_up(server: PostgresServer) -> None:
    """It was made: its caller must not be told that nothing was stored, nor another worker take a settled lease."""
    place = Place(server)
    async with PostgresStorage(place.url(pool=2).partition(":")[2], StorageContext(clock=Clock())) as storage:
        await storage.register([device("alice", "1")], time.time())
        operator = await asyncpg.connect(place.server.url(place.name))
        observer = await asyncpg.connect(place.server.url(place.name))
        await operator.execute("BEGIN; ALTER SEQUENCE fanout.changed CYCLE")
        sub = submission()
        call = asyncio.ensure_future(storage.put([sub], time.time()))
        waits = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock' AND query LIKE '%changed%'"
        while (pid := await observer.fetchval(waits, place.role)) is None:
            await asyncio.sleep(0)
        await observer.execute(f"SELECT pg_cancel_backend({pid})")
        await operator.execute("ROLLBACK")
        (put,) = await call
        assert (put.id, put.replayed) == (sub.id, False)
        assert await observer.fetchval("SELECT count(*) FROM fanout.notification") == 1
        await operator.close()
        await observer.close()


# -- what cannot be held


async def test_one_result_that_a_table_refuses_ends_as_dead(databases: Databases) -> None:
    """A constraint of the database's own, as a stand-in for whatever it cannot hold."""
    name = await databases.lend()
    url = databases.server.url(name)
    databases.server.sql("ALTER TABLE fanout.tally ADD CONSTRAINT ours CHECK (reason <> 'unheard of')", name)
    try:
        async with worker(url) as (engine, transport):
            for n in range(30):
                await engine.endpoints.register(user="bob", binding="push", address=f"b{n}")
            transport.script = lambda message, delivery: (
                Rejected("unheard of") if delivery.address == "b7" else Rejected("bad")
            )
            status = await (await engine.send(HI, "user:bob")).wait(60)
            assert status.counts["rejected"] == 29
            assert status.reasons["dead"] == {"cannot be stored": 1}
            assert len(transport.sends) == 30
            assert engine.fault is None
    finally:
        databases.server.sql("ALTER TABLE fanout.tally DROP CONSTRAINT ours", name)
        await databases.give_back(name)


async def test_what_no_column_can_hold_is_the_callers_to_mend(databases: Databases) -> None:
    name = await databases.lend()
    async with PostgresStorage(
        databases.server.url(name).partition(":")[2], context(), believe_callers=True
    ) as storage:
        noise = "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
        for user in ("nul\0", "lone\ud800", noise):
            wrong = device("alice", "1")
            object.__setattr__(wrong, "user", user)  # past the door
            with pytest.raises(ContentRefused) as caught:
                await storage.register([wrong], T0)
            assert noise[:40] not in str(caught.value)
        await storage.register([device("alice", "1")], T0)
        assert await storage.count_endpoints("default", Target.user("alice")) == {"apns": 1}
    await databases.give_back(name)
