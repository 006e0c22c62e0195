"""A database with an inbox, for the tests of enqueueing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg

from fanout.core.codec import digest
from fanout.core.records import Submission, Taken
from fanout.plugin import StorageContext
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, submission
from tests.postgres.conftest import Databases

__all__ = ["CONTEXT", "Place", "keyed", "lent"]

CONTEXT = StorageContext(clock=VirtualClock(T0))


class Place:
    """A database with one device, its storage, and what a worker does with the inbox."""

    def __init__(self, url: str, storage: PostgresStorage) -> None:
        self.url = url
        self.storage = storage

    async def take(self, storage: PostgresStorage | None = None, now: float = T0, limit: int = 100) -> list[Taken]:
        inbox = (storage or self.storage).inbox
        assert inbox is not None
        return await inbox.take(["default"], lambda sub: (sub, {}), now, limit=limit)

    async def due(self) -> bool:
        return await self.storage.inbox.due(["default"], T0)

    async def sql(self, text: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url, server_settings={"search_path": "fanout"})
        try:
            return list(await connection.fetch(text, *arguments))
        finally:
            await connection.close()


@asynccontextmanager
async def lent(databases: Databases, open_storage: Callable[..., PostgresStorage]) -> AsyncIterator[Place]:
    """A place that nobody else has."""
    name = await databases.lend()
    async with open_storage(name, CONTEXT) as storage:
        await storage.register([device("alice", "phone")], T0)
        yield Place(databases.server.url(name), storage)
    await databases.give_back(name)


def keyed(key: str = "k", body: bytes = b'{"title":"hello"}') -> Submission:
    sub = submission(idempotency_key=key)
    return replace(sub, content=body, digest=digest(body, sub.target, None))
