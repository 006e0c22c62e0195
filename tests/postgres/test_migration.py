"""The steps of the schema: killed anywhere they leave old or new, two at once are one, and versions N and N+1 run
together."""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest

from fanout.errors import StorageRefused
from fanout.plugin import StorageContext
from fanout.storage.postgres.migrating import migrate
from fanout.storage.postgres.schema import STEPS, VERSION
from fanout.storage.postgres.store import PostgresStorage
from fanout.storage.postgres.url import Options, parse
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device
from fanout_kit.postgres import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.external]

NEXT = "ALTER TABLE app ADD COLUMN colour text NOT NULL DEFAULT 'red'; CREATE TABLE later (id int PRIMARY KEY);"
KILL = "SELECT pg_terminate_backend(pg_backend_pid());"


@pytest.fixture
def options(server: PostgresServer) -> Options:
    return parse(server.url(server.fresh()).partition(":")[2])


async def attempt(options: Options, steps: tuple[str, ...] = STEPS) -> None:
    connection = await asyncpg.connect(options.dsn)
    try:
        await migrate(connection, options, steps=steps)
    finally:
        connection.terminate()


async def ask(options: Options, sql: str) -> object:
    connection = await asyncpg.connect(options.dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def killed(step: str, share: float) -> str:
    """The step, whose connection is killed before the statement that stands after this share of them."""
    places = [0, *(found.end() for found in re.finditer(r";\n", step))]
    place = places[round(share * (len(places) - 1))]
    return step[:place] + KILL + step[place:]


async def test_killed_at_a_statement(options: Options, request: pytest.FixtureRequest) -> None:
    cuts = 200 if request.config.getoption("--faults") else 6
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'fanout'"
    for i in range(cuts + 1):
        with pytest.raises(Exception, match="cannot be reached"):
            await attempt(options, (killed(STEPS[0], i / cuts), *STEPS[1:]))
        assert await ask(options, tables) == 0, "a killed first step leaves nothing"
    await attempt(options)
    assert await ask(options, "SELECT version FROM fanout.schema_version") == VERSION
    before = await ask(options, tables)
    for i in range(3):
        with pytest.raises(Exception, match="cannot be reached"):
            await attempt(options, (*STEPS, killed(NEXT.replace("; ", ";\n") + "\n", i / 2)))
        assert await ask(options, "SELECT version FROM fanout.schema_version") == VERSION
        assert await ask(options, tables) == before


async def test_many_at_once(options: Options) -> None:
    """Each process that is started brings the tables up to date; one does it, and the others find it done."""
    await asyncio.gather(*(attempt(options) for _ in range(4)))
    await asyncio.gather(*(attempt(options, (*STEPS, NEXT)) for _ in range(4)))
    assert await ask(options, "SELECT version FROM fanout.schema_version") == VERSION + 1
    assert await ask(options, "SELECT count(*) FROM fanout.schema_version") == 1


async def test_next_version_beside_this_one(options: Options) -> None:
    """A worker of this version goes on while one of the next migrates, and can be started afterwards, too."""
    location = options.dsn.partition(":")[2]
    context = StorageContext(clock=VirtualClock(T0))
    async with PostgresStorage(location, context) as storage:
        await storage.register([device("alice", "1")], T0)
        await attempt(options, (*STEPS, NEXT))
        (again,) = await storage.register([device("alice", "1", app="shop")], T0 + 1)
        async with PostgresStorage(location, context) as other:
            assert await other.get_endpoint("shop", again.id) == again
    await attempt(options, (*STEPS, NEXT, "SELECT 1"))
    with pytest.raises(StorageRefused, match="newer fanout"):
        await PostgresStorage(location, context).__aenter__()


async def test_other_programs_tables_are_left_alone(options: Options) -> None:
    location = options.dsn.partition(":")[2]
    await ask(options, "CREATE SCHEMA fanout")
    context = StorageContext(clock=VirtualClock(T0))
    await ask(options, "CREATE TABLE fanout.accounts (id int)")
    with pytest.raises(StorageRefused, match="another program"):
        await PostgresStorage(location, context).__aenter__()
    async with PostgresStorage(location + "?schema=push", context) as storage:
        assert len(await storage.register([device("alice", "1")], T0)) == 1
    assert await ask(options, "SELECT count(*) FROM push.endpoint") == 1


async def test_the_version_before_enters_a_device_whose_name_another_user_has_too(options: Options) -> None:
    """Its statements go on while the tables are already newer: it finds by (app, device), and enters its own user's
    anew."""
    before = next(number for number, step in enumerate(STEPS) if "subscription_anew" in step)
    insert = (
        "INSERT INTO fanout.subscription (platform, receive, endpoint, renewed_at, expires_at, created_at, app, usr, device, unsid) "
        "VALUES ('ios', 'push', 0, 1, 2, 1, 1, '{user}', 'phone', '{unsid}') RETURNING id"
    )
    await attempt(options, STEPS[:before])
    first = await ask(options, insert.format(user="alice", unsid="one"))
    await attempt(options)
    assert await ask(options, "SELECT unsid FROM fanout.subscription") == "one"
    assert await ask(options, insert.format(user="bob", unsid="two")) != first
    again = await ask(options, insert.format(user="alice", unsid="three"))
    assert again not in (None, first)
    assert await ask(options, "SELECT string_agg(unsid, ' ' ORDER BY id) FROM fanout.subscription") == "two three"
