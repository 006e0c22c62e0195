"""Each statement over many rows has one possible plan, whatever statistics say; and a server that lacks something is
told what."""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import fanout.storage.postgres
import fanout.storage.sql
from fanout.storage.postgres.audience import _OF_USERS
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.greeting import SETTINGS
from fanout.storage.postgres.migrating import migrate
from fanout.storage.postgres.url import parse
from fanout.storage.sql.endpoints import leaving
from fanout_kit.postgres import PostgresServer
from tests.postgres.probe import main, probe, statements

pytestmark = [pytest.mark.anyio, pytest.mark.external]

SOURCE = re.compile(r"\b(FROM|JOIN|USING) unnest\(")
RECORD = (
    "a statement is new: fence it (see fanout/storage/postgres/db.py), and list it by a run of the tests that use it, with "
    "FANOUT_STATEMENTS=tests/postgres/statements.txt"
)
ROWS = 300
FILL = f"""
DO $$
DECLARE found record; names text; row text;
BEGIN
  FOR found IN SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = 'fanout'::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT c.relispartition AND c.relname NOT IN ('schema_version', 'feed', 'probe', 'seal', 'origin')
  LOOP
    SELECT string_agg(quote_ident(attname), ','), string_agg(CASE format_type(atttypid, NULL)
      WHEN 'text' THEN '''x'' || i' WHEN 'bytea' THEN 'int4send(i)' WHEN 'boolean' THEN 'false' WHEN 'text[]' THEN 'ARRAY[''t'']'
      WHEN 'smallint' THEN 'i & 15' WHEN 'xid8' THEN 'pg_current_xact_id()' ELSE 'i' END, ',')
    INTO names, row FROM pg_attribute WHERE attrelid = found.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a';
    EXECUTE format('INSERT INTO %I (%s) SELECT %s FROM generate_series(1, {ROWS}) i', found.relname, names, row);
  END LOOP;
END $$
"""
LIE = """
UPDATE pg_class c SET relpages = 1, reltuples = CASE WHEN told.many THEN 1e7 ELSE 1 END
FROM unnest($1::text[], $2::boolean[]) told (name, many)
WHERE c.relnamespace = 'fanout'::regnamespace AND c.relkind IN ('r', 'p', 'i')
  AND told.name = regexp_replace(coalesce((SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = c.oid), c.oid::regclass::text), '_\\d+$', '')
"""


# -- the list


def _texts() -> Iterator[tuple[str, int, str]]:
    """The pieces of SQL that stand in this package's source: file, line, text between what is filled in, on one
    line."""
    for path in sorted(Path(fanout.storage.postgres.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for piece in re.split(r"\{[^}]*\}|%[sd]", " ".join(node.value.split())):
                    yield path.name, node.lineno, piece.strip()


def _made() -> Iterator[tuple[str, int, str]]:
    """The same of the texts of `fanout.storage.sql` that a list is read in, of those that do not stand in a
    variable."""
    for path in sorted(Path(fanout.storage.sql.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr) and any(
                isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in ("given", "joined")
                for call in ast.walk(node)
            ):
                for piece in node.values:
                    if isinstance(piece, ast.Constant):
                        yield path.name, node.lineno, " ".join(str(piece.value).split())


def _whole() -> Iterator[str]:
    """Each text of `fanout.storage.sql` as a whole, with an X for what is filled in: also of statements that are not in
    the list."""
    for path in sorted(Path(fanout.storage.sql.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts = (each.value if isinstance(each, ast.Constant) else "X" for each in node.values)
                yield " ".join("".join(map(str, texts)).split())


def test_every_array_that_is_read_as_rows_is_in_the_list() -> None:
    """Found in the source, so that a new statement does not escape the tests below."""
    listed = " \n".join(statements())
    places = [each for each in _texts() if "unnest(" in each[2] and each[0] not in ("db.py",)] + [*_made()]
    assert len(places) > 30
    missing = [f"{name}:{line}: {text}" for name, line, text in places if text not in listed]
    assert not missing, f"{RECORD}\n" + "\n".join(missing)


def test_what_has_a_limit_is_read_once() -> None:
    """Behind IN it is a part of a join, which some plans run again for each row: more than the limit is then
    deleted."""
    assert not [
        each for each in [*statements(), *_whole()] if re.search(r"\bIN \(SELECT [^()]*(\([^()]*\)[^()]*)*LIMIT", each)
    ]


# -- plans


@pytest.fixture(scope="module")
async def plans(server: PostgresServer) -> dict[str, dict[str, Any]]:
    """The generic plan of every listed statement by the statistics that it was made under."""
    options = parse(server.url(server.fresh()).partition(":")[2])
    connection = await asyncpg.connect(options.dsn)
    await migrate(connection, options)
    await connection.execute("SET search_path = fanout")
    found: dict[str, dict[str, Any]] = {statement: {} for statement in statements()}
    tables = [
        row[0]
        for row in await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'fanout'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        )
    ]

    async def lie(many: Callable[[], bool]) -> None:
        await connection.execute(LIE, tables, [many() for _ in tables])

    await _explain(options.dsn, found, "empty, never analysed")
    await connection.execute("VACUUM ANALYZE")
    await _explain(options.dsn, found, "analysed when empty")
    await connection.execute(FILL)
    await _explain(options.dsn, found, "filled, analysed when empty")
    await connection.execute("ANALYZE")
    await _explain(options.dsn, found, "analysed, nothing of interest in it")
    await lie(lambda: True)
    await _explain(options.dsn, found, "said to be millions")
    await lie(lambda: False)
    await _explain(options.dsn, found, "said to be one")
    for seed in range(3):
        rng = random.Random(seed)
        await lie(lambda rng=rng: rng.random() < 0.5)  # type: ignore[misc]
        await _explain(options.dsn, found, f"some are said to be millions, and some one ({seed})")
    await connection.close()
    return found


async def _explain(dsn: str, found: dict[str, dict[str, Any]], statistics: str) -> None:
    """In a session of its own: a prepared plan stays until statistics are taken."""
    connection = await asyncpg.connect(
        dsn, server_settings={**SETTINGS, "search_path": "fanout"}, statement_cache_size=0
    )
    try:
        for number, statement in enumerate(found):
            if SOURCE.search(statement) is None and " JOIN " not in statement and " LIMIT " not in statement:
                continue
            parameters = max((int(each) for each in re.findall(r"\$(\d+)", statement)), default=0)
            nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
            await connection.execute(f"PREPARE p{number} AS {statement}")
            answer = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE p{number}{nulls}")
            found[statement][statistics] = json.loads(answer)[0]["Plan"]
    finally:
        await connection.close()


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _first(plan: dict[str, Any]) -> dict[str, Any]:
    """What is read first: down the outer sides."""
    while parts := [
        part for part in plan.get("Plans", ()) if part["Parent Relationship"] in ("Outer", "Subquery", "Member")
    ]:
        plan = parts[0]
    return plan


_ARRAYS = ("Function Scan", "CTE Scan", "Result")
_BETWEEN = ("Materialize", "Memoize", "Subquery Scan")


def _wrong(plan: dict[str, Any]) -> set[str]:
    """What makes this more than a loop over an array that looks each row up in an index."""
    found = set()
    for node in _nodes(plan):
        kind = node["Node Type"]
        table = node.get("Relation Name", "")
        if kind in ("Hash Join", "Merge Join"):
            found.add(kind)
        if kind == "Nested Loop":
            first = _first(node)
            if first["Node Type"] not in _ARRAYS:
                found.add(f"begins with {first['Node Type']} of {first.get('Relation Name')}")
        # A partial index without a condition is named by a Recheck Cond as well, which is the index's own.
        if kind.startswith("Bitmap") or (
            table and kind.endswith("Scan") and not {"Index Cond", "TID Cond"} & node.keys()
        ):
            found.add(f"reads all of {table} by {kind} of {node.get('Index Name', 'itself')}")
    return found


def _shape(plan: dict[str, Any]) -> str:
    """The plan, but for what is between a loop and its rows, and for how a row is fetched that an index has found."""
    if plan["Node Type"] in _BETWEEN:
        return _shape(plan["Plans"][0])
    said = [plan["Node Type"].replace("Bitmap Heap", "Index").replace("Only ", "").replace("Bitmap Index", "Index")]
    said += [str(plan[key]) for key in ("Relation Name", "Index Name", "Index Cond") if key in plan]
    if plan["Node Type"] == "Bitmap Heap Scan":
        inner = plan["Plans"][0]
        return " ".join([*said, inner["Index Name"], str(inner.get("Index Cond", ""))])
    return f"{' '.join(said)}({', '.join(_shape(part) for part in plan.get('Plans', ()))})"


async def test_a_statement_over_an_array_begins_with_it_and_looks_up_by_one_index(
    plans: dict[str, dict[str, Any]],
) -> None:
    wrong = []
    some = {statement: made for statement, made in plans.items() if SOURCE.search(statement)}
    assert len(some) > 40
    for statement, made in some.items():
        assert len(made) > 7
        wrong += [
            f"{statistics}: {what}: {statement}" for statistics, plan in made.items() for what in sorted(_wrong(plan))
        ]
        shapes = {_shape(plan) for plan in made.values()}
        if len(shapes) > 1:
            wrong.append(f"{len(shapes)} plans: {statement}: {shapes}")
    assert not wrong, "\n".join(wrong)


async def test_rows_of_an_index_come_in_its_order(plans: dict[str, dict[str, Any]]) -> None:
    """A bitmap has none: a look at the first few of many would read all of them, and sort."""
    wrong = [
        f"{statistics}: {statement}"
        for statement, made in plans.items()
        for statistics, plan in made.items()
        if any(node["Node Type"].startswith("Bitmap") for node in _nodes(plan))
    ]
    assert not wrong, "\n".join(wrong)


async def test_no_two_lists_of_rows_are_compared_each_with_each(plans: dict[str, dict[str, Any]]) -> None:
    """What WITH has made has no index: to join two of them, or one with rows that an index gave, is quadratic."""
    wrong = {
        statement
        for statement, made in plans.items()
        for plan in made.values()
        for node in _nodes(plan)
        if node["Node Type"] == "Nested Loop" and "Join Filter" in node
        if any(inner["Node Type"] in ("CTE Scan", "Function Scan") for inner in _nodes(node["Plans"][1]))
    }
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (_OF_USERS, ("ARRAY[0]", "ARRAY[1]", "ARRAY['x3']", "ARRAY[3]::smallint[]")),
        (leaving(Db.__new__(Db)), ("ARRAY[3]", "ARRAY[1.0]::float8[]", "ARRAY['r']", "'gone'")),
    ],
)
async def test_one_partition_is_read_for_one_user(
    server: PostgresServer, statement: str, arguments: tuple[str, ...]
) -> None:
    options = parse(server.url(server.fresh()).partition(":")[2])
    connection = await asyncpg.connect(options.dsn)
    try:
        await migrate(connection, options)
        for setting, value in {**SETTINGS, "search_path": "fanout"}.items():
            await connection.execute(f"SET {setting} = '{value}'")
        await connection.execute(FILL)
        await connection.execute(f"PREPARE one AS {statement}")
        answer = await connection.fetchval(
            f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) EXECUTE one({', '.join(arguments)})"
        )
        scans = [node for node in _nodes(json.loads(answer)[0]["Plan"]) if "Index Name" in node]
        assert len(scans) == 16
        assert [node["Relation Name"] for node in scans if node["Actual Loops"]] == ["endpoint_3"]
    finally:
        await connection.close()


# -- what a server lacks


async def test_no_two_indexes_of_a_table_have_one_condition(server: PostgresServer) -> None:
    """Statistics of a time at which few rows are in them would let PostgreSQL read either, as a whole. Without a
    condition an index is read for its first columns alone."""
    name = server.fresh()
    connection = await asyncpg.connect(server.url(name))
    try:
        await migrate(connection, parse(server.url(name).partition(":")[2]))
        rows = await connection.fetch(
            "SELECT pg_get_expr(indpred, indrelid) AS condition, array_agg(indexrelid::regclass::text) AS indexes FROM pg_index "
            "JOIN pg_class c ON c.oid = indrelid WHERE c.relnamespace = 'fanout'::regnamespace AND indpred IS NOT NULL "
            "GROUP BY indrelid, 1 HAVING count(*) > 1"
        )
    finally:
        await connection.close()
        server.drop(name)
    assert [dict(row) for row in rows] == []


async def test_this_server_lacks_nothing_and_keeps_nothing_of_the_probe(server: PostgresServer) -> None:
    name = server.fresh()
    report = await probe(server.url(name))
    assert report.failures == ()
    assert report.run > 400
    assert server.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'fanout%'", name) == "0"


async def test_what_a_server_refuses_is_named(server: PostgresServer) -> None:
    """A function of the system that is kept from the role, as some services do."""
    name = server.fresh()
    server.sql("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    server.sql(f"GRANT CREATE ON DATABASE {name} TO poor")
    server.sql("REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC", name)
    report = await probe(server.url(name, user="poor", password="poor"))
    assert report.failures
    assert all(failure.why.startswith("42501 ") for failure in report.failures), report.failures
    assert all("pg_" in failure.statement for failure in report.failures)
    assert any("pg_logical_emit_message" in failure.statement for failure in report.failures)


def test_the_command_says_what_cannot_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["postgresql://fanout:secret@127.0.0.1:9/none"]) == 2
    assert "cannot be asked" in capsys.readouterr().err
