"""`memory:` keeps the contract, and so does the naive model that the model tests compare databases with."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fanout.plugin import StorageContext
from fanout.storage.memory import plugin
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.storage.sqlite.opening import connect
from fanout.testing.clock import VirtualClock
from fanout.testing.storage import CHECKS, run_check
from fanout.testing.storage_kit import ALICE, T0, device, done, lease_all, post, standing, submission
from tests.oracle.store import ModelStorage

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0))


@pytest.mark.parametrize("storage", [MemoryStorage, ModelStorage])
@pytest.mark.parametrize("name", CHECKS)
async def test_law(name: str, storage: type[MemoryStorage] | type[ModelStorage]) -> None:
    await run_check(name, lambda context: storage("", context))


def test_descriptor_is_light() -> None:
    assert plugin.name == "memory"
    assert plugin.factory == "fanout.storage.sqlite.in_memory:MemoryStorage"


async def test_two_are_two_databases() -> None:
    async with MemoryStorage("", CONTEXT) as one, MemoryStorage("", CONTEXT) as other:
        await one.register([device("alice", "1")], T0)
        assert await one.count_endpoints("default", ALICE) == {"apns": 1}
        assert await other.count_endpoints("default", ALICE) == {}
        assert await one.feed.identity() != await other.feed.identity()
        assert await one.person("default", "alice") != await other.person("default", "alice")


async def test_it_is_the_database_of_a_file(tmp_path: Path) -> None:
    """Its tables are copied and not made step by step; they are the same."""
    file = connect(str(tmp_path / "x.db"))
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    async with MemoryStorage("", CONTEXT) as storage:
        assert storage._database is not None
        memory = storage._database._connection
        assert memory.execute(schema).fetchall() == file.execute(schema).fetchall()
        counted = "SELECT seq, floor FROM feed"
        assert memory.execute(counted).fetchall() == file.execute(counted).fetchall()
    file.close()


async def test_nothing_runs_elsewhere_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    async with MemoryStorage("", CONTEXT) as storage:
        await storage.register([device("alice", "1")], T0)
        put = await post(storage, submission())
        (chunk,) = await lease_all(storage)
        await storage.settle([done(chunk)], T0)
        assert (await standing(storage, put.id or "")).counts["accepted"] == 1
        assert threading.active_count() == before
        assert storage.location == "memory:"
        assert not storage.shared
    assert os.listdir(tmp_path) == []


async def test_one_object_is_one_database() -> None:
    """Engines of a program may share it, at once or one after another."""
    storage = MemoryStorage("", CONTEXT)
    async with storage as one, storage as other:
        seen = await other.changes(others=True)
        await one.register([device("alice", "1")], T0)
        assert await other.changes(others=True) != seen
        assert await other.count_endpoints("default", ALICE) == {"apns": 1}
    async with storage as again:
        assert await again.count_endpoints("default", ALICE) == {"apns": 1}
