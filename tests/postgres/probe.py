"""Which statements of this storage a server understands, one by one: for a PostgreSQL that is not the ordinary one.

    PYTHONPATH=tests/kit python -m tests.postgres.probe postgresql://user@host/database

It makes a schema of its own there, with the tables, runs every statement in a transaction that is rolled back, drops
the schema, and names what failed. `statements.txt` lists the statements: what a run of the storage's own tests sends
(FANOUT_STATEMENTS in tests/postgres/conftest.py), one a line, and one of those that differ in the number of a partition
alone.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from fanout.errors import ConfigurationError
from fanout.storage.postgres.analyzing import ANALYZE
from fanout.storage.postgres.greeting import SETTINGS
from fanout.storage.postgres.naming import Used
from fanout.storage.postgres.operations import ATTEST
from fanout.storage.postgres.schema import STEPS
from fanout.storage.postgres.url import Options, parse

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["Failure", "Report", "families", "main", "probe", "statements"]

_LIST = "statements.txt"
_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_APART = ("typeinfo_tree", "pg_catalog.", "; COMMIT", "SELECT 1 / ", "SELECT current_setting(")
"""In what the driver and the tests ask for themselves; and in what goes in one message with COMMIT, which `probe` runs
by itself."""
_CONTENT = ("22", "23")
"""Classes of errors that say the statement ran and the values, which are all NULL here, did not fit: they count as
understood."""
_LIMIT = 20
"""Seconds for one statement."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A statement that the server refused, and why."""

    statement: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """How many statements were run, tables and queries together, and which failed."""

    run: int
    failures: tuple[Failure, ...]


def families(seen: Iterable[str]) -> list[str]:
    """Statements as the list has them: each on one line, sorted, of those that differ in numbers of partitions alone
    the first. Pure."""
    found: dict[str, str] = {}
    for line in sorted({" ".join(text.split()) for text in seen}):
        if line.lstrip("( ").split(" ", 1)[0] in _VERBS and not any(part in line for part in _APART):
            found.setdefault(re.sub(r"_\d+\b", "_N", line), line)
    return sorted(found.values())


def statements() -> list[str]:
    """The statements that the storage sends to a database with its tables."""
    return (files("tests.postgres") / _LIST).read_text(encoding="utf-8").splitlines()


def _tables() -> Iterator[str]:
    """The steps of the schema, statement by statement. The body of a function stands between `$$`."""
    for step in STEPS:
        lines = "\n".join(line for line in step.splitlines() if not line.lstrip().startswith("--"))
        place = start = 0
        quoted = False
        while place < len(lines):
            if lines.startswith("$$", place):
                quoted, place = not quoted, place + 2
            elif lines[place] == ";" and not quoted:
                yield lines[start:place].strip()
                start = place = place + 1
            else:
                place += 1


async def probe(url: str) -> Report:
    """Run every statement there. Raises what the driver raises where the server cannot be reached, and
    `ConfigurationError` for a bad URL."""
    options = parse(url.partition(":")[2])
    connection = await asyncpg.connect(options.dsn, statement_cache_size=0, timeout=_LIMIT)
    schema = f"fanout_probe_{secrets.token_hex(4)}"
    try:
        return await _run(connection, replace(options, schema=schema))
    finally:
        try:
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE", timeout=_LIMIT)
        finally:
            await connection.close(timeout=_LIMIT)


async def _run(connection: Connection, options: Options) -> Report:
    failures: list[Failure] = []
    done = 0

    async def attempt(statement: str, *, plain: bool) -> None:
        nonlocal done
        done += 1
        try:
            if plain:
                await connection.execute(statement, timeout=_LIMIT)
            else:
                await _rolled_back(connection, statement)
        except asyncpg.PostgresError as error:
            code: str = getattr(error, "sqlstate", None) or ""
            if plain or code[:2] not in _CONTENT:
                failures.append(Failure(" ".join(statement.split()), f"{code} {error}"))
        except (asyncpg.InterfaceError, TimeoutError) as error:
            failures.append(Failure(" ".join(statement.split()), type(error).__name__))

    for setting, value in {**SETTINGS, "search_path": options.schema}.items():
        await attempt(f"SET {setting} = '{value}'", plain=True)
    await attempt(f"CREATE SCHEMA {options.schema}", plain=True)
    for table in (*_tables(), "CREATE TABLE schema_version (version int NOT NULL)"):
        await attempt(table, plain=True)
    await attempt(ANALYZE, plain=True)
    used = Used()
    used.app(1, "default")
    used.binding(1, "apns", 1)
    for statement in (*statements(), used.sql(), ATTEST.rstrip("; "), f"SELECT nextval('{options.schema}.changed')"):
        # The schema stands in what is asked of its sequences by name.
        await attempt(re.sub(r"\bfanout\.(?=[a-z])", f"{options.schema}.", statement), plain=False)
    return Report(done, tuple(failures))


async def _rolled_back(connection: Connection, statement: str) -> None:
    transaction = connection.transaction()
    await transaction.start()
    try:
        prepared = await connection.prepare(statement, timeout=_LIMIT)
        await prepared.fetch(*[None] * len(prepared.get_parameters()), timeout=_LIMIT)
    finally:
        if not connection.is_closed():
            await transaction.rollback()


def main(arguments: list[str] | None = None) -> int:
    """The command. Exits with 0 where nothing failed, 1 where something did, 2 where the server cannot be asked."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.postgres.probe",
        description="Runs every statement of the PostgreSQL storage in a schema of its own, and names those that the server refuses.",
    )
    parser.add_argument("url", help="postgresql://user@host/database, with the right to make a schema")
    url = parser.parse_args(arguments).url
    try:
        report = asyncio.run(probe(url))
    except (ConfigurationError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        sys.stderr.write(f"The server cannot be asked: {type(error).__name__}: {error}\n")
        return 2
    for failure in report.failures:
        sys.stdout.write(f"FAILS  {failure.why}\n       {failure.statement}\n")
    sys.stdout.write(f"{report.run} statements, {len(report.failures)} of which fail.\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
