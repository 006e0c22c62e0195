"""The PostgreSQL storage keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from fanout.plugin import StorageContext
from fanout.storage.postgres import plugin
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage import CHECKS, Maker, run_check
from tests.postgres.conftest import Databases, opened

pytestmark = [pytest.mark.anyio, pytest.mark.external]


@pytest.mark.parametrize("name", CHECKS)
async def test_law(name: str, makers: tuple[Maker, Maker]) -> None:
    await run_check(name, *makers)


async def test_what_is_pruned_keeps_to_its_limit_whatever_the_planner_thinks(databases: Databases) -> None:
    """Where it joins by loops alone, a query inside another may be run once for each row."""
    name = await databases.lend()
    connection = await asyncpg.connect(databases.server.url(name))

    @asynccontextmanager
    async def fresh(context: StorageContext) -> AsyncIterator[PostgresStorage]:
        async with opened(databases.server, name, context) as storage:
            yield storage

    try:
        for other in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize"):
            await connection.execute(f"ALTER DATABASE {name} SET enable_{other} = off")
        await run_check("pruning", fresh, fresh)
    finally:
        await connection.execute(f"ALTER DATABASE {name} RESET ALL")
        await connection.close()
        await databases.give_back(name)


def test_descriptor_is_light() -> None:
    assert plugin.name == "postgresql"
    assert plugin.factory == "fanout.storage.postgres.store:make"
    assert plugin.extra == "postgres"
