"""Puts of many callers in one transaction: each hears of its own fault only, and nobody waits for another app's
flood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from fanout.core.model import Target
from fanout.core.records import Put, Submission
from fanout.errors import StorageError
from fanout.storage.acceptance import gathered
from fanout.storage.postgres import gathering as gathering_module
from fanout.storage.postgres.failure import Unknown
from fanout.storage.postgres.gathering import Gathering
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage_kit import T0, device, submission
from fanout_kit.postgres import PostgresServer

from .conftest import Databases
from .test_connection import context

pytestmark = [pytest.mark.anyio]

BLOCKED = (
    "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
)


class Store:
    """A put of batches that is under way until the test lets it go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = asyncio.Event()
        self.fail: Any = lambda ids: None

    async def __call__(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        ids = [sub.id for sub in submissions]
        self.batches.append(ids)
        await self.go.wait()
        if error := self.fail(ids):
            raise error
        return [Put(id=id, total=1) for id in ids]


def gathered_by(store: Store) -> Gathering:
    """With all apps known."""

    async def enter(app: str) -> None:
        raise AssertionError(app)

    return Gathering(store, lambda app: True, enter)


def plain(id: str, app: str = "default") -> Submission:
    return replace(submission(Target.user("alice"), app=app), id=id)


async def begun(store: Store, batches: int = 1) -> None:
    while len(store.batches) < batches:
        await asyncio.sleep(0)


async def test_those_that_wait_while_one_is_under_way_share_the_next_transaction() -> None:
    store = Store()
    gathering = gathered_by(store)
    first = asyncio.create_task(gathering.put([plain("a")], T0))
    await begun(store)
    others = [asyncio.create_task(gathering.put([plain(f"b{n}"), plain(f"c{n}")], T0)) for n in range(5)]
    await asyncio.sleep(0)
    assert store.batches == [["a"]], "a caller alone is not delayed, and one transaction is under way at a time"
    store.go.set()
    answers = await asyncio.gather(first, *others)
    assert len(store.batches) == 2
    assert [[put.id for put in each] for each in answers] == [["a"], *([f"b{n}", f"c{n}"] for n in range(5))]


async def test_a_fault_is_its_callers_own() -> None:
    store = Store()
    store.fail = lambda ids: StorageError("no column holds it") if "bad" in ids else None
    gathering = gathered_by(store)
    first = asyncio.create_task(gathering.put([plain("a")], T0))
    await begun(store)
    puts = [asyncio.create_task(gathering.put([plain(id)], T0)) for id in ("b", "bad", "c")]
    await asyncio.sleep(0)
    store.go.set()
    results = await asyncio.gather(first, *puts, return_exceptions=True)
    assert [isinstance(each, StorageError) for each in results] == [False, False, True, False]
    assert store.batches[1:] == [["b", "bad", "c"], ["b"], ["bad"], ["c"]]


async def test_doubt_is_told_to_all_and_nothing_is_stored_a_second_time() -> None:
    store = Store()
    store.fail = lambda ids: Unknown("lost") if len(ids) > 1 else None
    gathering = gathered_by(store)
    first = asyncio.create_task(gathering.put([plain("a")], T0))
    await begun(store)
    puts = [asyncio.create_task(gathering.put([plain(id)], T0)) for id in ("b", "c")]
    await asyncio.sleep(0)
    store.go.set()
    results = await asyncio.gather(first, *puts, return_exceptions=True)
    assert [isinstance(each, Unknown) for each in results] == [False, True, True]
    assert len(store.batches) == 2


async def test_a_caller_that_gives_up_before_its_transaction_stores_nothing() -> None:
    store = Store()
    gathering = gathered_by(store)
    first = asyncio.create_task(gathering.put([plain("a")], T0))
    await begun(store)
    puts = [asyncio.create_task(gathering.put([plain(id)], T0)) for id in ("b", "c")]
    await asyncio.sleep(0)
    puts[0].cancel()
    await asyncio.sleep(0)
    store.go.set()
    await asyncio.gather(first, puts[1])
    assert store.batches == [["a"], ["c"]]
    first = asyncio.create_task(gathering.put([plain("d")], T0))
    store.go.clear()
    await begun(store, 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    store.go.set()
    assert [put.id for put in await gathering.put([plain("e")], T0)] == ["e"], "the others go on"


async def test_one_that_hangs_keeps_nobody_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering_module, "_SLOW", -1.0)
    store = Store()
    gathering = gathered_by(store)
    puts = []
    for n in range(5):
        puts.append(asyncio.create_task(gathering.put([plain(str(n))], T0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert store.batches == [["0"], ["1"], ["2"]], "the connections are others' too"
    store.go.set()
    await asyncio.gather(*puts)
    assert store.batches[3:] == [["3", "4"]]


async def test_a_put_that_comes_as_the_last_one_ends_begins_anew() -> None:
    store = Store()
    store.go.set()
    gathering = gathered_by(store)
    for turns in range(8):
        first = asyncio.create_task(gathering.put([plain("a")], T0))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(120):
            await asyncio.gather(first, gathering.put([plain("b")], T0))


async def test_apps_take_turns() -> None:
    store = Store()
    gathering = gathered_by(store)
    puts = [asyncio.create_task(gathering.put([plain("a")], T0))]
    await begun(store)
    puts += [asyncio.create_task(gathering.put([plain(f"f{n}", "flood")], T0)) for n in range(1200)]
    puts += [asyncio.create_task(gathering.put([plain(f"q{n}", "quiet")], T0)) for n in range(3)]
    await asyncio.sleep(0)
    store.go.set()
    await asyncio.gather(*puts)
    assert store.batches[1][:6] == ["f0", "q0", "f1", "q1", "f2", "q2"]
    assert [len(batch) for batch in store.batches] == [1, 500, 500, 203]


async def test_a_new_app_is_entered_once_and_holds_up_its_own_callers_alone() -> None:
    store = Store()
    store.go.set()
    known = {"default"}
    held: dict[str, asyncio.Event] = {"new": asyncio.Event(), "bad": asyncio.Event()}
    asked: list[str] = []

    async def enter(app: str) -> None:
        asked.append(app)
        await held[app].wait()
        if app == "bad":
            raise StorageError("no column holds it")
        known.add(app)

    gathering = Gathering(store, known.__contains__, enter)
    new = [asyncio.create_task(gathering.put([plain(f"n{n}", "new")], T0)) for n in range(3)]
    both = asyncio.create_task(gathering.put([plain("x"), plain("y", "new")], T0))
    keyed = asyncio.create_task(gathering.put([replace(plain("k", "new"), idempotency_key="k")], T0))
    bad = [asyncio.create_task(gathering.put([plain(f"b{n}", "bad")], T0)) for n in range(2)]
    assert [put.id for put in await gathering.put([plain("a")], T0)] == ["a"]
    new[0].cancel()
    assert [put.id for put in await gathering.put([plain("b")], T0)] == ["b"]
    assert store.batches == [["a"], ["b"]]
    held["bad"].set()
    assert {type(each) for each in await asyncio.gather(*bad, return_exceptions=True)} == {StorageError}
    held["new"].set()
    await asyncio.gather(*new[1:], both, keyed)
    assert sorted(asked) == ["bad", "new"]
    assert {id for batch in store.batches[2:] for id in batch} == {"n1", "n2", "x", "y", "k"}, (
        "the caller that gave up stores nothing, and takes no other's answer along"
    )


@pytest.mark.external
async def test_a_name_that_another_transaction_has_not_committed_holds_up_its_own_callers_alone(
    databases: Databases, open_storage: Callable[..., PostgresStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "_SLOW", 60.0)
    name = await databases.lend()
    foreign = await asyncpg.connect(databases.server.url(name), server_settings={"search_path": "fanout"})
    async with open_storage(name, context(), pool=2) as storage:
        await storage.register([device("alice", "a")], T0)
        holding = foreign.transaction()
        await holding.start()
        await foreign.execute("INSERT INTO app (name) VALUES ('new')")
        new = submission(Target.user("alice"), app="new")
        keyed = replace(submission(Target.user("alice"), app="new"), idempotency_key="k")
        waiting = [asyncio.create_task(storage.put([each], T0)) for each in (new, keyed)]
        while not await foreign.fetchval(BLOCKED):
            await asyncio.sleep(0)
        others = [asyncio.create_task(storage.put([submission(Target.user("alice"))], T0)) for _ in range(20)]
        async with asyncio.timeout(120):
            assert [put.total for (put,) in await asyncio.gather(*others)] == [1] * 20
        assert not any(each.done() for each in waiting)
        await holding.commit()
        assert [put.total for (put,) in await asyncio.gather(*waiting)] == [0, 0]
    await foreign.close()
    await databases.give_back(name)


@pytest.mark.parametrize(
    "change",
    [
        {"idempotency_key": "k"},
        {"collapse_key": "k"},
        {"refused": frozenset({"apns"})},
        {"optional": True},
        {"due_at": T0 + 60},
        {"target": Target.all()},
        {"target": Target.topic("news")},
        {"target": Target.users([f"u{n}" for n in range(17)])},
    ],
    ids=str,
)
def test_what_may_wait_conflict_or_be_refused_goes_alone(change: dict[str, Any]) -> None:
    assert gathered([plain("a")], T0)
    assert not gathered([plain("a"), replace(plain("b"), **change)], T0)


@pytest.mark.external
async def test_many_callers_on_a_server(server: PostgresServer, open_storage: Callable[..., PostgresStorage]) -> None:
    async with open_storage(server.fresh(), context()) as storage:
        await storage.register([device(f"u{n}", str(n)) for n in range(50)], T0)
        begins = 0
        write = storage._write

        async def counted(function: Any, *arguments: Any, **more: Any) -> Any:
            nonlocal begins
            begins += 1
            return await write(function, *arguments, **more)

        storage._write = counted  # type: ignore[method-assign]
        made = [submission(Target.user(f"u{n % 50}")) for n in range(200)]
        answers = await asyncio.gather(*(storage.put([each], T0) for each in made))
        assert [[put.id, put.total] for (put,) in answers] == [[each.id, 1] for each in made]
        assert begins <= 2
        assert (await storage.outstanding())["ready"] == 200
