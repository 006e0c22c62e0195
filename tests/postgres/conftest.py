"""One server for all tests of a process, and databases that are made once, lent to a test, and emptied when it gives
them back."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from asyncpg.connection import Connection

from fanout.plugin import StorageContext
from fanout.storage.postgres.migrating import migrate
from fanout.storage.postgres.pool import Pool
from fanout.storage.postgres.store import PostgresStorage
from fanout.storage.postgres.url import parse
from fanout.testing.storage import Maker
from fanout_kit.postgres import MISSING, PostgresServer, find_programs
from tests.faults.conftest import nursery
from tests.postgres.books import Differences, differences
from tests.postgres.probe import families

__all__ = ["nursery"]

_EMPTY = """
DO $$
DECLARE part record;
BEGIN
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
  FOR part IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'fanout' AND c.relkind = 'r' AND c.relname NOT IN ('schema_version', 'feed', 'probe')
    AND pg_relation_size(c.oid) > 0
  LOOP
    EXECUTE format('DELETE FROM ONLY %s', part.name);
  END LOOP;
  FOR part IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'fanout' AND c.relkind = 'S'
  LOOP
    EXECUTE format('SELECT setval(%L, 1, false)', part.name::text);
  END LOOP;
  UPDATE feed SET seq = 0, floor = 0;
END $$
"""


class Databases:
    """Lends databases: `url()` is the address of an empty one, which nobody else has until `give_back`."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._free: list[str] = []

    async def lend(self) -> str:
        """The name of an empty database with the tables."""
        if self._free:
            return self._free.pop()
        name = self.server.fresh()
        options = parse(self.server.url(name).partition(":")[2])
        connection = await asyncpg.connect(options.dsn)
        try:
            await migrate(connection, options)
        finally:
            await connection.close()
        return name

    async def give_back(self, name: str) -> None:
        """Empty it."""
        await self.judge_and_give_back(name, judge=False)

    async def judge_and_give_back(self, name: str, *, judge: bool = True) -> Differences:
        """What differs in its books, which is then empty with all else."""
        connection = await asyncpg.connect(self.server.url(name), server_settings={"search_path": "fanout"})
        try:
            found = await differences(connection) if judge else {}
            await connection.execute(_EMPTY)
        finally:
            await connection.close()
        self._free.append(name)
        return found


_FIRST_OF_A_DATABASE = 16384
"""Types with lower numbers are those of the server's version (PostgreSQL: "System Catalog Initial Data")."""


@contextmanager
def _known_types() -> Iterator[None]:
    """Asks what an array of the server's own types is made of once, and not on each connection: 10 ms of it."""
    asked = Connection._introspect_types
    known: dict[frozenset[int], Any] = {}

    async def introspect(self: Any, types: Any, timeout: Any) -> Any:
        wanted = frozenset(types)
        if wanted in known:
            return known[wanted], SimpleNamespace(name="none: nothing was prepared in the place of the caller's")
        found = await asked(self, types, timeout)
        if max(wanted) < _FIRST_OF_A_DATABASE:
            known[wanted] = found[0]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "_introspect_types", introspect)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    if find_programs() is None:
        pytest.skip(MISSING)
    with _known_types(), PostgresServer.start() as made:
        yield made


@pytest.fixture(scope="session")
def databases(server: PostgresServer) -> Databases:
    return Databases(server)


@pytest.fixture
async def makers(databases: Databases) -> AsyncIterator[tuple[Maker, Maker]]:
    """Two makers for the conformance suite: of an empty database each time, and of the last one, opened again."""
    lent: list[str] = []

    @asynccontextmanager
    async def fresh(context: StorageContext) -> AsyncIterator[PostgresStorage]:
        lent.append(await databases.lend())
        async with opened(databases.server, lent[-1], context) as storage:
            yield storage

    @asynccontextmanager
    async def again(context: StorageContext) -> AsyncIterator[PostgresStorage]:
        async with opened(databases.server, lent[-1], context) as storage:
            yield storage

    yield fresh, again
    wrong = [await databases.judge_and_give_back(name) for name in lent]
    assert not any(wrong), f"the books balance: {wrong}"


def opened(server: PostgresServer, name: str, context: StorageContext, **options: object) -> PostgresStorage:
    """The storage in that database, whose callers' clock is believed."""
    location = server.url(name, **options).partition(":")[2]
    return PostgresStorage(location, context, believe_callers=True)


@pytest.fixture
def open_storage(server: PostgresServer) -> Callable[..., PostgresStorage]:
    """`opened`, on the server of these tests."""

    def made(name: str, context: StorageContext, **options: object) -> PostgresStorage:
        return opened(server, name, context, **options)

    return made


# -- the list of statements

_seen: set[str] = set()


@pytest.fixture(scope="session", autouse=True)
def recorded() -> Iterator[None]:
    """With FANOUT_STATEMENTS=FILE: what these tests run is added there (`tests.postgres.probe`). Begin without the file
    to have no old ones."""
    # The programs that tests start refuse a variable FANOUT_… that is no setting.
    target = os.environ.pop("FANOUT_STATEMENTS", "")
    if not target:
        yield
        return
    dial = Pool._dial

    async def dialed(self: Pool, dsn: str) -> Any:
        made = await dial(self, dsn)
        if self.options.schema == "fanout":
            made[0].add_query_logger(lambda record: _seen.add(record.query))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "_dial", dialed)
        yield
    there = Path(target)
    known = there.read_text().splitlines() if there.exists() else []
    there.write_text("".join(f"{line}\n" for line in families([*known, *_seen])))
