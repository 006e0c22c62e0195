"""The connections in which a statement can be run, known by the names of their modules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fanout.enqueue.statement import Answer, Statement
from fanout.errors import UsageError

__all__ = ["enqueue", "enqueue_async"]

_IDLE = 0
"""psycopg.pq.TransactionStatus.IDLE and psycopg2.extensions.TRANSACTION_STATUS_IDLE."""
_NO_TABLES = ("42P01", "3F000", "42703")
_NO_RIGHT = "42501"

Row: TypeAlias = Any
_Blocking: TypeAlias = Callable[[Any, Statement], Row]
_Async: TypeAlias = Callable[[Any, Statement], Awaitable[Row]]


def enqueue(connection: object, statement: Statement) -> Answer:
    """Run a statement in a blocking connection. An error of the driver passes through, unless a sentence here says how
    to mend it.

    Args:
        connection: A connection of psycopg, psycopg2, SQLAlchemy or Django, in a transaction.
        statement: The statement.

    Returns:
        The id, and whether it is an earlier notification's.

    Raises:
        UsageError: The connection is of another kind, or in no transaction; or its database has no inbox that its user
            may write to.
        Conflict: The idempotency key belongs to another request.
    """
    run = _BLOCKING.get(_kind(connection))
    if run is None:
        raise _unsuitable(connection, "A blocking call", _BLOCKING, "await engine.send(…, connection=…)")
    try:
        row = run(connection, statement)
    except Exception as error:
        explained = _explained(error, statement)
        if explained is None:
            raise
        raise explained from error
    return statement.answer(row)


async def enqueue_async(connection: object, statement: Statement) -> Answer:
    """Run a statement in an asynchronous connection. An error of the driver passes through, unless a sentence here says
    how to mend it.

    Args:
        connection: A connection of asyncpg, psycopg or SQLAlchemy, in a transaction.
        statement: The statement.

    Returns:
        The id, and whether it is an earlier notification's.

    Raises:
        UsageError: The connection is of another kind, or in no transaction; or its database has no inbox that its user
            may write to.
        Conflict: The idempotency key belongs to another request.
    """
    run = _ASYNC.get(_kind(connection))
    if run is None:
        raise _unsuitable(connection, "engine.send", _ASYNC, "fanout.sync.enqueue, in a thread")
    try:
        row = await run(connection, statement)
    except Exception as error:
        explained = _explained(error, statement)
        if explained is None:
            raise
        raise explained from error
    return statement.answer(row)


def _kind(connection: object) -> str:
    """The driver's name and, of its asynchronous kind, a star: ``sqlalchemy*``. Empty for what is none of them."""
    for cls in type(connection).__mro__:
        library = cls.__module__.partition(".")[0]
        if library == "asyncpg":
            return "asyncpg*"
        if library in ("psycopg", "psycopg2", "sqlalchemy", "django"):
            return library + ("*" if cls.__name__.lower().startswith("async") else "")
    return ""


# -- asynchronous


async def _asyncpg(connection: Any, statement: Statement) -> Row:
    if not connection.is_in_transaction():
        raise _outside("async with connection.transaction():")
    return await connection.fetchrow(statement.sql(lambda number, name: f"${number}"), *statement.values.values())


async def _psycopg_async(connection: Any, statement: Statement) -> Row:
    from psycopg.rows import tuple_row

    _check_psycopg(connection)
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement.sql(_percent), list(statement.values.values()))
        return await cursor.fetchone()


async def _sqlalchemy_async(connection: Any, statement: Statement) -> Row:
    if hasattr(connection, "get_bind"):
        connection = await connection.connection()
    _check_dialect(connection)
    _check_autocommit((await connection.get_raw_connection()).dbapi_connection)
    return (await connection.execute(_text(statement), statement.values)).fetchone()


# -- blocking


def _psycopg(connection: Any, statement: Statement) -> Row:
    from psycopg.rows import tuple_row

    _check_psycopg(connection)
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement.sql(_percent), list(statement.values.values()))
        return cursor.fetchone()


def _psycopg2(connection: Any, statement: Statement) -> Row:
    if connection.autocommit and connection.get_transaction_status() == _IDLE:
        raise _outside("connection.autocommit = False")
    with connection.cursor() as cursor:
        cursor.execute(statement.sql(_percent), list(statement.values.values()))
        row = cursor.fetchone()
        return list(row.values()) if isinstance(row, dict) else row


def _sqlalchemy(connection: Any, statement: Statement) -> Row:
    if hasattr(connection, "get_bind"):
        connection = connection.connection()
    _check_dialect(connection)
    _check_autocommit(connection.connection.dbapi_connection)
    return connection.execute(_text(statement), statement.values).fetchone()


def _django(connection: Any, statement: Statement) -> Row:
    if connection.vendor != "postgresql":
        raise _not_postgresql(connection.vendor)
    if connection.get_autocommit() and not connection.in_atomic_block:
        raise _outside("with transaction.atomic():")
    with connection.cursor() as cursor:
        cursor.execute(statement.sql(_percent), list(statement.values.values()))
        return cursor.fetchone()


_BLOCKING: dict[str, _Blocking] = {
    "psycopg": _psycopg,
    "psycopg2": _psycopg2,
    "sqlalchemy": _sqlalchemy,
    "django": _django,
}
_ASYNC: dict[str, _Async] = {"asyncpg*": _asyncpg, "psycopg*": _psycopg_async, "sqlalchemy*": _sqlalchemy_async}
_NAMES = {
    "psycopg": "psycopg.Connection",
    "psycopg2": "psycopg2's connection",
    "sqlalchemy": "SQLAlchemy's Connection or Session",
    "django": "django.db.connection",
    "asyncpg*": "asyncpg.Connection",
    "psycopg*": "psycopg.AsyncConnection",
    "sqlalchemy*": "SQLAlchemy's AsyncConnection or AsyncSession",
}


def _percent(number: int, name: str) -> str:
    return "%s"


def _text(statement: Statement) -> Any:
    from sqlalchemy import text

    return text(statement.sql(lambda number, name: f":{name}"))


def _check_psycopg(connection: Any) -> None:
    if connection.autocommit and connection.info.transaction_status == _IDLE:
        raise _outside("with connection.transaction():")


def _check_dialect(connection: Any) -> None:
    if connection.dialect.name != "postgresql":
        raise _not_postgresql(connection.dialect.name)


def _check_autocommit(raw: Any) -> None:
    if getattr(raw, "autocommit", False) is True:
        raise _outside("an engine without AUTOCOMMIT")


def _outside(how: str) -> UsageError:
    return UsageError(
        f"The connection is in no transaction, so the notification would be sent whatever becomes of it: use {how} or, to send at once, "
        "leave connection out."
    )


def _not_postgresql(name: str) -> UsageError:
    return UsageError(
        f"The connection leads to {name}: a notification is enqueued in PostgreSQL, where fanout's tables are."
    )


def _unsuitable(connection: object, what: str, kinds: dict[str, Any], other: str) -> UsageError:
    cls = type(connection)
    return UsageError(
        f"{what} cannot enqueue in a {cls.__module__}.{cls.__qualname__}: it takes {', '.join(_NAMES[name] for name in kinds)}. "
        f"For others there is {other}."
    )


def _explained(error: BaseException, statement: Statement) -> UsageError | None:
    """A sentence for what can be mended here; None where the driver's own error must do."""
    state = _state(error)
    if state in _NO_TABLES:
        return UsageError(
            f"This database has no schema {statement.schema} with fanout's tables of this version: name the database that `storage` names, "
            "and open it once with fanout (`fanout work`)."
        )
    if state == _NO_RIGHT:
        return UsageError(
            f"This connection's user may not enqueue: GRANT USAGE ON SCHEMA {statement.schema}, SELECT ON {statement.schema}.app, "
            f"{statement.schema}.idempotency, and SELECT, INSERT ON {statement.schema}.inbox to it."
        )
    return None


def _state(error: BaseException) -> str:
    """The SQLSTATE, however deep a library has wrapped it."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            break
        state = getattr(seen, "sqlstate", None) or getattr(seen, "pgcode", None)
        if isinstance(state, str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__
    return ""
