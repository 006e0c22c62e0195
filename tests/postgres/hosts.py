"""The ways in which a host talks to its own database: a transaction of each driver, and how a notification is enqueued
in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import psycopg
import sqlalchemy
from django.apps import apps
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from fanout.core.records import Submission
from fanout.enqueue import Answer, Statement, enqueue, enqueue_async
from fanout.testing.storage_kit import T0

__all__ = ["ASYNC", "BLOCKING", "EVERY", "Transaction", "begin", "django_connection"]

Run = Callable[..., Awaitable[Any]]


class Transaction:
    """An open one. `put` enqueues in it, `sql` runs a statement of the host's own."""

    def __init__(self, connection: Any, blocking: bool, execute: Any) -> None:
        self.connection = connection
        self._blocking = blocking
        self._execute = execute

    async def put(self, submission: Submission, *, schema: str = "fanout") -> Answer:
        statement = Statement(submission, schema, T0 - 1000)
        if self._blocking:
            return await asyncio.to_thread(enqueue, self.connection, statement)
        return await enqueue_async(self.connection, statement)

    async def sql(self, text: str) -> None:
        if self._blocking:
            await asyncio.to_thread(self._execute, text)
        else:
            await self._execute(text)


@asynccontextmanager
async def begin(kind: str, url: str, *, commit: bool = True) -> AsyncIterator[Transaction]:
    """A transaction of that kind, committed or rolled back at the end; rolled back, too, when the block raises."""
    async with _KINDS[kind](url) as (transaction, end):
        try:
            yield transaction
        except BaseException:
            await end(False)
            raise
        await end(commit)


def _sqlalchemy(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://")


@asynccontextmanager
async def _asyncpg(url: str) -> AsyncIterator[tuple[Transaction, Run]]:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()

    async def end(commit: bool) -> None:
        await (transaction.commit() if commit else transaction.rollback())

    try:
        yield Transaction(connection, False, connection.execute), end
    finally:
        await connection.close()


@asynccontextmanager
async def _asyncpg_pool(url: str) -> AsyncIterator[tuple[Transaction, Run]]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()

        async def end(commit: bool) -> None:
            await (transaction.commit() if commit else transaction.rollback())

        yield Transaction(connection, False, connection.execute), end


@asynccontextmanager
async def _psycopg_async(url: str) -> AsyncIterator[tuple[Transaction, Run]]:
    # Rows of another shape than usual: what the host has chosen for itself must not matter.
    connection: Any = await psycopg.AsyncConnection.connect(url, row_factory=dict_row)

    async def end(commit: bool) -> None:
        await (connection.commit() if commit else connection.rollback())

    try:
        yield Transaction(connection, False, connection.execute), end
    finally:
        await connection.close()


@asynccontextmanager
async def _alchemy_async(url: str, *, driver: str, session: bool) -> AsyncIterator[tuple[Transaction, Run]]:
    engine = create_async_engine(_sqlalchemy(url, driver), poolclass=NullPool)
    try:
        async with AsyncSession(engine) if session else engine.connect() as connection:

            async def end(commit: bool) -> None:
                await (connection.commit() if commit else connection.rollback())

            async def execute(text: str) -> None:
                await connection.execute(sqlalchemy.text(text))

            yield Transaction(connection, False, execute), end
    finally:
        await engine.dispose()


@asynccontextmanager
async def _psycopg(url: str) -> AsyncIterator[tuple[Transaction, Run]]:
    connection: Any = await asyncio.to_thread(lambda: psycopg.connect(url, row_factory=dict_row))

    async def end(commit: bool) -> None:
        await asyncio.to_thread(connection.commit if commit else connection.rollback)

    try:
        yield Transaction(connection, True, connection.execute), end
    finally:
        connection.close()


@asynccontextmanager
async def _alchemy(url: str, *, session: bool) -> AsyncIterator[tuple[Transaction, Run]]:
    engine = sqlalchemy.create_engine(_sqlalchemy(url, "psycopg"), poolclass=NullPool)
    connection: Any = Session(engine) if session else await asyncio.to_thread(engine.connect)

    async def end(commit: bool) -> None:
        await asyncio.to_thread(connection.commit if commit else connection.rollback)

    try:
        yield Transaction(connection, True, lambda text: connection.execute(sqlalchemy.text(text))), end
    finally:
        await asyncio.to_thread(connection.close)
        await asyncio.to_thread(engine.dispose)


@asynccontextmanager
async def _django(url: str) -> AsyncIterator[tuple[Transaction, Run]]:
    connection = django_connection(url)
    # As `atomic` does, which knows connections of the configuration only. Django's connections may change threads when
    # told so.
    connection.inc_thread_sharing()

    def start() -> None:
        connection.set_autocommit(False)
        connection.in_atomic_block = True

    def end(commit: bool) -> None:
        connection.in_atomic_block = False
        (connection.commit if commit else connection.rollback)()

    def execute(text: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    await asyncio.to_thread(start)
    try:
        yield Transaction(connection, True, execute), lambda commit: asyncio.to_thread(end, commit)
    finally:
        await asyncio.to_thread(connection.close)


def django_connection(url: str) -> Any:
    """What `django.db.connection` would be, in a program of that database."""
    if not settings.configured:
        settings.configure(USE_TZ=True)
        apps.populate(())
    from django.db.backends.postgresql.base import DatabaseWrapper

    parts = conninfo_to_dict(url)
    # With the defaults that Django adds itself to what stands in DATABASES.
    chosen = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts["user"],
        "PASSWORD": parts["password"],
        "HOST": parts["host"],
        "PORT": parts["port"],
        "OPTIONS": {},
        "TIME_ZONE": None,
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,
        "AUTOCOMMIT": True,
        "ATOMIC_REQUESTS": False,
        "TEST": {},
    }
    return DatabaseWrapper(chosen)


_KINDS: dict[str, Any] = {
    "asyncpg": _asyncpg,
    "asyncpg-pool": _asyncpg_pool,
    "psycopg-async": _psycopg_async,
    "sqlalchemy-asyncpg": partial(_alchemy_async, driver="asyncpg", session=False),
    "sqlalchemy-asyncpg-session": partial(_alchemy_async, driver="asyncpg", session=True),
    "sqlalchemy-psycopg-async-session": partial(_alchemy_async, driver="psycopg", session=True),
    "psycopg": _psycopg,
    "sqlalchemy": partial(_alchemy, session=False),
    "sqlalchemy-session": partial(_alchemy, session=True),
    "django": _django,
}
EVERY = list(_KINDS)
ASYNC = EVERY[:6]
BLOCKING = EVERY[6:]
