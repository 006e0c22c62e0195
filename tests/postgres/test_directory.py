"""The directory's own risks here: many who register at once, rows by COPY and by INSERT, odd values, sessions that a
pooler shares."""

from __future__ import annotations

import asyncio
import random
import traceback
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from fanout.core.address import Address
from fanout.core.alike import AlikeRows
from fanout.core.endpoint import EndpointState, Registration
from fanout.core.model import Target
from fanout.core.records import EndpointFilter
from fanout.core.shard import shard_of
from fanout.errors import ContentRefused, StorageError, UsageError
from fanout.plugin import StorageContext
from fanout.storage.postgres import operations
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage import CHECKS, Kit
from fanout.testing.storage_kit import T0, device, lease_all, post, settle_all, submission

from .conftest import Databases, opened

pytestmark = [pytest.mark.anyio, pytest.mark.external]

ODD = [
    "",
    "'; DROP TABLE endpoint; --",
    '"\\/\b\f\n\r\t',
    "ⅷ 漢字 🙂",
    "null",
    "NULL",
    "{}",
    "a,b",
    " {x,\\N} ",
    "%_*?",
]


def context(chunk: int = 1000) -> StorageContext:
    return StorageContext(clock=VirtualClock(T0), chunk=chunk)


@asynccontextmanager
async def lent(databases: Databases, count: int = 1, **options: object) -> AsyncIterator[list[PostgresStorage]]:
    """So many storages on one empty database, which must be in order in the end."""
    name = await databases.lend()
    storages = [opened(databases.server, name, context(), **options) for _ in range(count)]
    try:
        await asyncio.gather(*(storage.__aenter__() for storage in storages))
        yield storages
        await balanced(databases.server.url(name))
    finally:
        await asyncio.gather(*(storage.__aexit__() for storage in storages))
        await databases.give_back(name)


async def balanced(url: str) -> None:
    """Active endpoints and held addresses are the same, topics are of active ones, and each endpoint stands where its
    id says."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "fanout"})
    try:
        for wrong in (
            "SELECT count(*) FROM endpoint e FULL JOIN address a ON a.endpoint = e.id AND a.digest = e.digest AND a.binding = e.binding "
            "WHERE (e.state = 'active') IS DISTINCT FROM (a.endpoint IS NOT NULL)",
            "SELECT count(*) FROM (SELECT id, binding, unnest(tags) AS tag FROM endpoint WHERE state = 'active' AND usr <> '') e "
            "FULL JOIN endpoint_tag t ON t.endpoint = e.id AND t.binding = e.binding AND t.tag = e.tag "
            "WHERE e.id IS NULL OR t.endpoint IS NULL",
            "SELECT count(*) FROM endpoint WHERE shard <> id & 15",
            "SELECT count(*) - count(DISTINCT id) FROM endpoint",
        ):
            assert await connection.fetchval(wrong) == 0, wrong
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "size", [6, pytest.param(60, marks=pytest.mark.long("6 devices, at which the callers meet more often"))]
)
async def test_many_register_the_same_at_once(databases: Databases, size: int) -> None:
    """Whatever comes in between: an address has one active endpoint, and everybody is answered."""
    rng = random.Random(size)
    deadlocks = databases.server.logged("deadlock detected")
    async with lent(databases, 3) as storages:

        async def work(storage: PostgresStorage, user: str) -> None:
            for turn in range(3):
                tokens = rng.sample(range(size), size)
                wanted = [device(user, str(token), tags=rng.sample("xyz", 2)) for token in tokens]
                entered = await storage.register(wanted, T0 + turn)
                assert [each.address for each in entered] == [each.address for each in wanted]
                chosen = [each.id for each in entered[: size // 3]]
                await rng.choice([storage.remove_endpoints, storage.restore_endpoints])("default", chosen, T0 + turn)
                await storage.intern("default", "apns", [each.address for each in wanted[: size // 2]], T0 + turn)
                if rng.random() < 0.3:
                    await storage.erase_user("default", user, T0 + turn)

        await asyncio.gather(*(work(storages[i % 3], f"user{i}") for i in range(6)))
        last = await storages[0].register([device("last", str(i), tags=["t"]) for i in range(size)], T0 + 9)
        assert await storages[1].list_endpoints(EndpointFilter()) == sorted(last, key=lambda each: each.id)
        assert await storages[2].count_endpoints("default", Target.topic("t")) == {"apns": size}
        ids = [event.id for event in await storages[0].events(limit=10_000)]
        assert ids == sorted(set(ids))
    assert databases.server.logged("deadlock detected") == deadlocks


async def test_large_batches_go_another_way(databases: Databases) -> None:
    """By COPY, and in runs where an address occurs twice; what is stored is what was answered."""
    async with lent(databases) as (storage,):
        many = [device(f"u{i % 40}", str(i), tags=ODD[1:]) for i in range(300)]
        entered = await storage.register([*many, replace(many[0], user="other")], T0)
        assert len({each.id for each in entered}) == 301
        listed = await storage.list_endpoints(EndpointFilter(state=None))
        assert [each for each in listed if each.id != entered[0].id] == sorted(entered[1:], key=lambda each: each.id)
        assert listed[0].state is EndpointState.REPLACED
        rows = await storage.resolve(array("q", [each.id for each in entered]), T0)
        assert {row.id: row.address for row in rows} == {each.id: each.address.value for each in entered}
        again = await storage.register([replace(each, tags=("y", "null")) for each in many[1:]], T0 + 1)
        assert [(each.id, each.generation) for each in again] == [(each.id, 2) for each in entered[1:300]]
        for tag, count in (("y", 299), ("null", 300), ("{}", 1)):
            assert await storage.count_endpoints("default", Target.topic(tag)) == {"apns": count}
        pages: list[int] = []
        while page := await storage.list_endpoints(EndpointFilter(tag="y"), after=pages[-1] if pages else 0, limit=100):
            pages += [each.id for each in page]
        assert pages == sorted(each.id for each in again)


@pytest.mark.parametrize("text", ODD)
async def test_any_text_comes_back(databases: Databases, text: str) -> None:
    async with lent(databases) as (storage,):
        new = Registration(
            user=f"u{text}",
            binding=f"b{text}",
            app=f"a{text}",
            address=Address(f"v{text}", kind=text, group=text, identity=f"i{text}"),
            platform=text,
            tags=(text, "other") if text else ("other",),
            expires_at=T0 + 0.1 + 0.2,
        )
        (entered,) = await storage.register([new], T0 + 0.1)
        assert await storage.get_endpoint(new.app, entered.id) == entered
        assert await storage.list_endpoints(EndpointFilter(app=new.app, user=new.user, tag=text or "other")) == [
            entered
        ]
        (row,) = await storage.resolve(array("q", [entered.id]), 0.0)
        assert (row.address, row.kind, row.group) == (new.address.value, text, text)
        sub = replace(
            submission(Target("topic", (text or "other",)), app=new.app), content=text.encode(), collapse_key=f"c{text}"
        )
        (put,) = await storage.put([sub], T0)
        assert put.total is None
        stored = await storage.notification(sub.id)
        assert stored is not None
        assert stored.content == text.encode()


@pytest.mark.parametrize("bad", ["\ud800", "a\x00b"])
@pytest.mark.parametrize("count", [1, 60])
async def test_what_cannot_be_stored_is_refused(databases: Databases, bad: str, count: int) -> None:
    """As misuse, without saying what it was, and with nothing stored of the call."""
    async with lent(databases) as (storage,):
        good = [device("alice", str(i)) for i in range(count)]
        changes: list[dict[str, Any]] = [
            {"user": bad},
            {"app": bad},
            {"binding": bad},
            {"tags": (bad,)},
            {"platform": bad},
        ]
        for change in changes:
            # Where the registration is made, or where that does not look at the field, by storage.
            with pytest.raises(UsageError, match=r"cannot be stored|valid as UTF-8") as caught:
                await storage.register([*good[1:], replace(good[0], **change)], T0)
            assert "token" not in str(caught.value)
        with pytest.raises(UsageError):
            await storage.get_endpoint("default", 2**70)
        with pytest.raises(UsageError):
            await storage.list_endpoints(EndpointFilter(), after=2**70)
        assert await storage.list_endpoints(EndpointFilter(state=None)) == []


async def test_no_message_shows_an_address(databases: Databases) -> None:
    """The server's own words for a row that breaks a rule hold the whole row."""
    async with lent(databases) as (storage,):
        (entered,) = await storage.register([device("alice", "canary")], T0)
        for statement in (
            "UPDATE endpoint SET usr = NULL",
            "INSERT INTO endpoint SELECT * FROM endpoint",
            "UPDATE endpoint SET generation = address::int",
        ):
            with pytest.raises((StorageError, UsageError)) as caught:
                await storage._write(lambda db, sql=statement: db.run(sql))
            assert "canary" not in "".join(traceback.format_exception(caught.value))
        assert "canary" not in repr(entered)


def test_parts_stay_where_they_are() -> None:
    """An endpoint is found by its user's part: the same in every release."""
    users: Sequence[str] = ("alice", "bob", "ⅷ 漢字 🙂", "u" * 500)
    assert [shard_of(user, b"\x07") for user in users] == [7, 0, 1, 13]
    assert shard_of("", b"\xf7") == 7


async def test_behind_a_pooler(databases: Databases) -> None:
    """With `prepared=off` nothing is left behind on a connection, as PgBouncer in transaction mode wants it."""
    name = await databases.lend()

    @asynccontextmanager
    async def maker(given: StorageContext) -> AsyncIterator[PostgresStorage]:
        async with opened(databases.server, name, given, prepared="off", pool=1) as storage:
            yield storage

    try:
        await CHECKS["registering_refreshes"](Kit(maker))
        async with maker(context()) as storage:
            sub = submission(Target.all())
            await post(storage, sub)
            await storage.expand("default", "apns", T0, ahead=4)
            await settle_all(storage, await lease_all(storage))
            connection = await storage._pool.take()
            assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
            assert await connection.fetchval("SHOW search_path") != "fanout"
            storage._pool.give(connection, sound=True)
    finally:
        await databases.give_back(name)


async def test_an_operation_is_run_until_no_other_comes_in_between(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: on a busy machine that is no fault of the caller's. A value that is taken each time is one."""
    errors: list[Exception] = []
    once = operations.Database._once

    async def disturbed(self: Any, connection: Any, call: Any) -> Any:
        if errors:
            raise errors.pop()
        return await once(self, connection, call)

    monkeypatch.setattr(operations.Database, "_once", disturbed)
    async with lent(databases) as (storage,):
        errors += [asyncpg.DeadlockDetectedError("deadlock")] * 14
        (entered,) = await storage.register([device("alice", "1")], T0)
        assert entered.address == device("alice", "1").address
        errors += [asyncpg.UniqueViolationError("taken")] * 14
        with pytest.raises(ContentRefused):
            await storage.register([device("alice", "1")], T0)
        assert len(errors) == 2
        errors.clear()


async def test_endpoints_of_one_part_that_are_alike_are_read_by_column(databases: Databases) -> None:
    """As a broadcast names them: of one part of the directory, by id."""
    async with lent(databases) as (storage,):
        entered = await storage.register([device("alice", str(i)) for i in range(120)], T0)
        entered += await storage.register([device("alice", str(i)) for i in range(60, 120)], T0 + 1)
        latest = {each.id: each for each in entered}
        rows = await storage.resolve(array("q", sorted(latest)), T0)
        assert isinstance(rows, AlikeRows)
        assert [(row.id, row.address, row.registered_at, row.generation) for row in rows] == [
            (id, latest[id].address.value, latest[id].registered_at, latest[id].generation) for id in sorted(latest)
        ]
        await storage.remove_endpoints("default", [min(latest)], T0)
        assert not isinstance(await storage.resolve(array("q", sorted(latest)), T0), AlikeRows)
