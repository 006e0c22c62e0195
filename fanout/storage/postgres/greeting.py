"""The questions to every new connection, in one statement: which database this is, its time, and whether it can be
used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from fanout.errors import StorageRefused, StorageUnavailable
from fanout.storage.postgres.url import Options

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["SETTINGS", "Greeting", "Identity", "Pooled", "greet", "judge", "pooled", "unless_same"]

SETTINGS = {
    "statement_timeout": "15s",  # first: until it is set, the database's own holds
    "application_name": "fanout",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "standard_conforming_strings": "on",
    "row_security": "off",  # rows that a policy hides are an error, and not rows that there are none of
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",  # of a partial index it would be a look at all that is open, sorted afterwards
}
"""Of every session. Each statement here has an index made for it and takes its rows from arrays: so it has one plan, a
loop over an index, also with the statistics of a table that was empty when it was first planned. To compile one takes
longer than to run it (`jit`).
"""
_TELLTALE = "plan_cache_mode"
"""A setting that a pooler neither follows nor hands on."""


class Identity(NamedTuple):
    """Which database a connection leads to. Another one of these is another database, also under the same name and
    address.

    The timeline is another after a standby was promoted, the numbers of database and schema after those were made anew
    from a dump.
    """

    system: str
    timeline: str
    database: int
    schema: int


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer. `now` is the database's clock, in UNIX seconds; `commits` its synchronous_commit."""

    identity: Identity
    now: float
    encoding: str
    commits: str
    standby: bool
    read_only: bool
    telltale: str


class Pooled(Exception):
    """A pooler stands between that hands no settings on: another client's connection keeps the settings and prepared
    statements."""


_CONTROL = "(SELECT system_identifier::text FROM pg_control_system())"
_GREETING = """
SELECT {}, CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
  (SELECT oid::int8 FROM pg_database WHERE datname = current_database()), coalesce(to_regnamespace('{}')::oid::int8, 0),
  extract(epoch FROM clock_timestamp())::float8, current_setting('server_encoding'), current_setting('synchronous_commit'),
  pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on', current_setting('{}')
"""
"""`pg_control_checkpoint` goes on telling the old timeline for seconds after a promotion; the name of the present log
file does not."""


async def greet(connection: Connection, options: Options) -> Greeting:
    """Ask. Raises `Pooled` where the settings of a `prepared` connection did not arrive, and any error of the driver.

    In a transaction, for behind a pooler two statements may else go to two sessions.
    """
    try:
        return await _ask(connection, options, _CONTROL)
    except asyncpg.InsufficientPrivilegeError:
        # Of pg_control_system, which some services keep to themselves: the rest tells most databases apart.
        return await _ask(connection, options, "''")


async def _ask(connection: Connection, options: Options, system: str) -> Greeting:
    try:
        await connection.execute("BEGIN READ ONLY; SET LOCAL statement_timeout = '15s'")
        row = await connection.fetchrow(_GREETING.format(system, options.schema, _TELLTALE))
        assert row is not None
        greeting = Greeting(Identity(*row[:4]), *row[4:])
        if options.prepared and greeting.telltale != SETTINGS[_TELLTALE]:
            await connection.execute("DEALLOCATE ALL")  # a statement prepared just now is not ours alone
            raise Pooled
    except asyncpg.ConnectionDoesNotExistError:
        raise StorageUnavailable(
            f"The database {options.shown} ended the connection within its first transaction. A PgBouncer with pool_mode = statement always "
            "does: set transaction or session there. A server that has just been stopped does once."
        ) from None
    finally:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
    return greeting


def unless_same(identity: Identity, schema: str) -> str:
    """A statement that fails with a division by zero in any other database: behind a pooler it goes along with each
    transaction."""
    return (
        "SELECT 1 / (CASE WHEN pg_is_in_recovery() THEN false ELSE "
        f"substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) = '{identity.timeline}' AND coalesce(to_regnamespace('{schema}')::oid::int8, 0) "
        f"= {identity.schema} AND (SELECT oid::int8 FROM pg_database WHERE datname = current_database()) = {identity.database} END)::int"
    )


def pooled(error: BaseException) -> bool:
    """Whether a failure to connect comes from a pooler: it refuses settings at the start of a session, or mixes up
    prepared statements."""
    if isinstance(error, Pooled):
        return True
    code = getattr(error, "sqlstate", None)
    return code in ("26000", "42P05") or (code == "08P01" and "unsupported startup parameter" in str(error))


def judge(greeting: Greeting, shown: str) -> StorageUnavailable | None:
    """Why this database cannot be used, if so. Pure."""
    if greeting.encoding != "UTF8":
        return StorageRefused(
            f"The database {shown} has the encoding {greeting.encoding}, which does not hold every text: make one with UTF8 "
            "(createdb -E UTF8 -T template0)."
        )
    if greeting.standby:
        return StorageUnavailable(f"No server of {shown} takes writes: all are standbys. Promote one.")
    if greeting.read_only:
        return StorageRefused(
            f"The database {shown} is read-only: default_transaction_read_only is on for it, for this user or for its server. Set it to "
            "off (ALTER DATABASE or ALTER ROLE … SET default_transaction_read_only = off)."
        )
    return None
