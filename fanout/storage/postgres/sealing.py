"""How `storage.sql.sealing` is run here: when a database is opened, and to seal one that has its addresses in clear.

Every transaction that touches addresses reads the table `seal`, and so holds the weakest of locks on it until its end.
One that changes the record takes the strongest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from fanout.plugin import StorageContext
from fanout.storage.postgres.db import Db, Known
from fanout.storage.postgres.failure import translate
from fanout.storage.postgres.hot import HOT
from fanout.storage.postgres.migrating import migrate
from fanout.storage.postgres.pool import Pool
from fanout.storage.postgres.url import parse
from fanout.storage.sql import sealing

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["begin", "seal"]

_PATIENCE = "60s"
"""For which others are waited for that have read the record before it changes. Meanwhile no other process gets at an
address."""


async def begin(connection: Connection, context: StorageContext, location: str, schema: str) -> None:
    """See `storage.sql.sealing`. Raises `StorageRefused`."""
    async with connection.transaction():
        # For this transaction only: behind a pooler the session is another client's afterwards.
        await connection.execute(f"SET LOCAL search_path = {schema}; SET LOCAL statement_timeout = '15s'")
        await sealing.begin(Db(connection, context, Known(context, location), HOT))


async def seal(location: str, context: StorageContext, progress: Callable[[int], None]) -> int:
    """Seal the addresses stored in clear or under another than the first key; how many endpoints that were. See
    `StoragePlugin`.

    After a kill the next call goes on at the same place. At the end the tables are written anew, because overwritten
    rows stand in them until then. That takes room for a second copy of one sixteenth of them at a time. The server's
    write-ahead log and its backups are beyond this. Raises `StorageError`.
    """
    assert context.sealer is not None
    options = parse(location)
    connection = await Pool(options).connect()
    try:
        await migrate(connection, options, create=context.create)
        await connection.execute(
            f"SET search_path = {options.schema}; SET statement_timeout = 0; SET lock_timeout = '{_PATIENCE}'"
        )
        known = Known(context, options.shown)

        async def run(operation: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
            async with connection.transaction():
                return await operation(Db(connection, context, known, HOT), *arguments)

        async def rewrite() -> None:
            for table in await connection.fetch(_PARTS):
                await connection.execute(f"VACUUM (FULL) {table['name']}")

        return await sealing.seal_all(run, context.sealer, options.shown, progress, rewrite)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise translate(error, options.shown) from None
    finally:
        connection.terminate()


_PARTS = """
SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent IN ('endpoint'::regclass, 'address'::regclass)
"""
