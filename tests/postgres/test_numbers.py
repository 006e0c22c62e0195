"""A process keeps the numbers of apps and bindings; rows that are renumbered below it lead to no other tenant's
device."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from fanout.core.model import Target
from fanout.core.records import EndpointFilter
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage_kit import T0, device, submission
from fanout_kit.postgres import PostgresServer

from .test_connection import context

pytestmark = [pytest.mark.anyio, pytest.mark.external]

_APPS = "ALTER TABLE app DROP CONSTRAINT IF EXISTS app_name_key; UPDATE app SET name = CASE name WHEN 'shop' THEN 'bank' ELSE 'shop' END"
_OF_BINDINGS = "UPDATE binding SET app = app + 10; UPDATE binding SET app = 13 - app"
SWAPS = {
    # The first has number 1, the second 2: each comes to have the other's, and what is theirs goes along.
    "apps": f"BEGIN; {_APPS}; {_OF_BINDINGS}; UPDATE endpoint SET app = 3 - app; UPDATE notification SET app = 3 - app; COMMIT",
    "bindings": f"BEGIN; {_OF_BINDINGS}; UPDATE endpoint SET binding = 3 - binding; UPDATE address SET binding = 3 - binding; "
    "UPDATE chunk SET binding = 3 - binding; COMMIT",
}


async def _swap(server: PostgresServer, name: str, how: str) -> None:
    connection = await asyncpg.connect(server.url(name), server_settings={"search_path": "fanout"})
    try:
        await connection.execute(SWAPS[how])
    finally:
        await connection.close()


@pytest.mark.parametrize("how", SWAPS)
async def test_numbers_that_were_swapped_lead_to_no_other_tenant(
    server: PostgresServer, open_storage: Callable[..., PostgresStorage], how: str
) -> None:
    name = server.fresh()
    async with open_storage(name, context()) as storage:
        mine, theirs = await storage.register([device("alice", "1", app="shop"), device("alice", "2", app="bank")], T0)
        waiting = submission(app="bank")
        await storage.put([waiting], T0)
        incarnation = storage.incarnation
        await _swap(server, name, how)

        leased = await storage.lease("w", "shop", "apns", 1, limit=10, now=T0, until=T0 + 30)
        assert leased == [], "what waits is the bank's"
        assert storage.incarnation > incarnation, "what was learned is forgotten"
        await _swap(server, name, how)  # and back: now the numbers that were just learned are wrong
        sent = submission(app="shop")
        await storage.put([sent], T0)
        (chunk,) = await storage.lease("w", "shop", "apns", 1, limit=10, now=T0, until=T0 + 30)
        assert (chunk.notification, list(chunk.ids)) == (sent.id, [mine.id])
        (chunk,) = await storage.lease("w", "bank", "apns", 1, limit=10, now=T0, until=T0 + 30)
        assert (chunk.notification, list(chunk.ids)) == (waiting.id, [theirs.id])

        await _swap(server, name, how)
        (new,) = await storage.register([device("carol", "3", app="shop")], T0)
        assert [each.id for each in await storage.list_endpoints(EndpointFilter(app="shop"))] == [mine.id, new.id]
        await _swap(server, name, how)
        ready, _ = await storage.waiting("bank", "apns", T0)
        assert not any(ready)
        assert await storage.count_endpoints("bank", Target.user("alice")) == {"apns": 1}
