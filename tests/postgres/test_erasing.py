"""After a user is erased, no row of PostgreSQL has the id, a text or an address, nor has one that no worker has taken
yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import asyncpg
import pytest

from fanout.core.model import Target
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage_erase import ADDRESS, TEXT, USER, leave_traces
from fanout.testing.storage_kit import T0, standing, submission
from tests.postgres.conftest import Databases
from tests.postgres.places import Place, lent

pytestmark = [pytest.mark.anyio, pytest.mark.external]

_COLUMNS = """
SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'fanout' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2
"""


@pytest.fixture
async def place(databases: Databases, open_storage: Callable[..., PostgresStorage]) -> AsyncIterator[Place]:
    async with lent(databases, open_storage) as found:
        yield found


async def traces(place: Place) -> set[str]:
    """The table and column of every value, of whatever type, in which the id, a text or an address stands, in clear or
    as bytes."""
    found: set[str] = set()
    connection = await asyncpg.connect(place.url, server_settings={"search_path": "fanout"})
    marks = [form for mark in (USER, TEXT, ADDRESS) for form in (mark, mark.encode().hex())]
    said = "EXISTS (SELECT 1 FROM {} t WHERE EXISTS (SELECT 1 FROM unnest($1::text[]) m WHERE position(m in {}::text) > 0))"
    try:
        columns = await connection.fetch(_COLUMNS)
        for table in sorted({row[0] for row in columns}):
            if await connection.fetchval(f"SELECT {said.format(table, 't')}", marks):
                for column in [row[1] for row in columns if row[0] == table]:
                    if await connection.fetchval(f"SELECT {said.format(table, f't.{column}')}", marks):
                        found.add(f"{table}.{column}")
    finally:
        await connection.close()
    return found


async def enqueue(place: Place, *targets: Target) -> list[str]:
    connection = await asyncpg.connect(place.url)
    ids = []
    try:
        async with connection.transaction():
            for target in targets:
                made = replace(
                    submission(target), content=b'{"title":"%b"}' % (TEXT if len(target.names) < 2 else "x").encode()
                )
                ids.append((await place.storage.inbox.enqueue(connection, made, T0)).id)
    finally:
        await connection.close()
    return ids


async def test_no_column_has_it(place: Place) -> None:
    await leave_traces(place.storage)
    hers, both = await enqueue(place, Target.user(USER), Target.users([USER, "bob"]))
    before = await traces(place)
    assert before >= {
        "endpoint.usr", "endpoint.address", "notification.content", "notification.aim", "notification.names", "idempotency.key",
        "expansion.target", "event.data", "feed_item.usr", "feed_item.content", "subscription.usr", "inbox.envelope", "inbox.content",
    }, "the search finds what is there"  # fmt: skip
    await place.storage.erase_user("default", USER, T0 + 1)
    assert await traces(place) == set()
    assert (await standing(place.storage, hers, T0 + 2)).state == "cancelled"
    (taken,) = await place.take()
    assert (taken.submission.id, taken.submission.target) == (both, Target.users(["bob"]))


async def test_what_no_worker_has_taken_is_exported_too(place: Place) -> None:
    await leave_traces(place.storage)
    before, _ = await place.storage.addressed("default", USER)
    hers, both = await enqueue(place, Target.user(USER), Target.users([USER, "bob"]))
    assert await place.storage.addressed("default", USER) == ([*before, hers, both], None)
    assert (await place.storage.addressed("default", "bob"))[0][-1] == both
    assert hers not in (await place.storage.addressed("default", "bob"))[0]
    assert await place.storage.addressed("other", USER) == ([], None)


async def test_said_twice_it_is_done_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to COMMIT is lost: the same call, run again, says the same number."""
    from fanout.core.audit import Audit
    from fanout.storage.postgres.db import Db
    from fanout.storage.sql import erasing, watching

    left = await leave_traces(place.storage)
    audit = Audit(kind="audit.user.erased", user=USER)
    assert await place.storage.erase_user("default", USER, T0 + 1, audit=audit) == len(left.endpoints)

    async def again(db: Db) -> int:
        db.again = True
        return (await watching.audited(db, audit, erasing.erase, "default", USER, T0 + 1)).endpoints

    assert await place.storage._write(again) == len(left.endpoints)
    assert len(await place.storage.events(audit=True)) == 1
