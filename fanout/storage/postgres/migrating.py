"""Bringing a database up to date: one process at a time, step by step, each step whole or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from fanout.errors import FanoutError, StorageAbsent, StorageRefused
from fanout.storage.postgres.failure import refusal, translate
from fanout.storage.postgres.schema import STEPS
from fanout.storage.postgres.url import Options

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["migrate"]

_OLDEST = 14
"""PostgreSQL 14: the first whose `xmin` and partition pruning do as is relied on here, and the oldest still
maintained."""
_LIMIT = 300.0
"""Seconds for all steps together, waiting for another process's included."""


async def migrate(
    connection: Connection, options: Options, *, steps: tuple[str, ...] = STEPS, create: bool = True
) -> None:
    """Run the missing `steps`. Raises `StorageRefused` for a server too old, a database too new, and missing rights.

    Without `create` no table is made where there is none yet: raises `StorageAbsent`.

    A database one version ahead is used as it is: a step only adds to the previous version's schema (`schema`). So
    workers of both run together during a rollout.
    """
    if connection.get_server_version().major < _OLDEST:
        raise StorageRefused(
            f"The server of {options.shown} is PostgreSQL {connection.get_server_version().major}: use {_OLDEST} or newer."
        )
    try:
        async with asyncio.timeout(_LIMIT):
            first = 0
            while (version := await _look(connection, options, len(steps))) < len(steps):
                first = first or version
                if version == 0 and not create:
                    raise StorageAbsent(
                        f"The database {options.shown} has no tables of fanout yet: correct `storage`, or begin with `fanout work` or "
                        "`fanout send`, which make them."
                    )
                await _step(connection, options, steps)
            if first:
                await _analyze(connection, options)
    except TimeoutError:
        raise StorageRefused(
            f"The tables of {options.shown} were not ready within {_LIMIT:.0f} s: see which process holds the lock (pg_locks)."
        ) from None
    except FanoutError:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise refusal(error, options.shown) or translate(error, options.shown) from None


async def _look(connection: Connection, options: Options, version: int) -> int:
    """`_version` in a transaction of its own: with its own settings, not those of the user or a pooler."""
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = '15s'")
        return await _version(connection, options, version)


async def _version(connection: Connection, options: Options, newest: int) -> int:
    """Of the tables as they are; 0 where there are none. Raises `StorageRefused`."""
    table = f"{options.schema}.schema_version"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        if await connection.fetchval(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 LIMIT 1",
            options.schema,
        ):
            raise StorageRefused(
                f"The schema {options.schema} of {options.shown} holds another program's tables: it is left alone. "
                "Name another with ?schema=NAME."
            )
        return 0
    version = await connection.fetchval(f"SELECT version FROM {table}") or 0
    if version > newest + 1:
        raise StorageRefused(
            f"The database {options.shown} is of schema version {version}, and this fanout knows {newest} and works with one more: "
            "install the newer fanout, or name another database."
        )
    return version


async def _step(connection: Connection, options: Options, steps: tuple[str, ...]) -> None:
    """One step and its number in one transaction, under a lock that ends with it: a killed process leaves the version
    before or after."""
    schema = options.schema
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"fanout migration of {schema}")
        version = await _version(connection, options, len(steps))
        if version >= len(steps):
            return
        if await connection.fetchval("SELECT to_regnamespace($1)", schema) is None:
            # With IF NOT EXISTS too, it asks for the right to make one, which the owner of one that is there need not
            # have.
            await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.execute(f"SET LOCAL search_path = {schema}")
        await connection.execute(steps[version])
        if version == 0:
            await connection.execute("CREATE TABLE schema_version (version int NOT NULL)")
            await connection.execute("INSERT INTO schema_version VALUES (0)")
        await connection.execute("UPDATE schema_version SET version = $1", version + 1)


async def _analyze(connection: Connection, options: Options) -> None:
    """New columns and indexes have no statistics, and those of a database that was just restored are missing. Of empty
    tables there are none."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL search_path = {options.schema}")
        tables = await connection.fetchval(_TABLES, options.schema)
        await connection.execute(f"ANALYZE {tables}")


_TABLES = """
SELECT string_agg(quote_ident(c.relname), ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
