"""The SQLite storage keeps the contract, on its thread and inline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from fanout.plugin import StorageContext
from fanout.storage.sqlite import plugin
from fanout.storage.sqlite.store import Inline, SqliteStorage, Thread
from fanout.storage.sqlite.worker import Offload
from fanout.testing.storage import CHECKS, Maker, check_storage, run_check

pytestmark = pytest.mark.anyio


def makers(folder: Path, offload: Callable[[], Offload] = Thread) -> tuple[Maker, Maker]:
    """One that makes a fresh file each time, and one that opens the last one again."""
    numbers = count()
    last = [folder / "none.db"]

    @asynccontextmanager
    async def fresh(context: StorageContext) -> AsyncIterator[SqliteStorage]:
        last[0] = folder / f"{next(numbers)}.db"
        async with SqliteStorage(str(last[0]), context, offload=offload) as storage:
            yield storage

    @asynccontextmanager
    async def again(context: StorageContext) -> AsyncIterator[SqliteStorage]:
        async with SqliteStorage(str(last[0]), context, offload=offload) as storage:
            yield storage

    return fresh, again


@pytest.mark.parametrize("offload", [Thread, Inline])
@pytest.mark.parametrize("name", CHECKS)
async def test_law(name: str, offload: Callable[[], Offload], tmp_path: Path) -> None:
    await run_check(name, *makers(tmp_path, offload))


async def test_whole_suite(tmp_path: Path) -> None:
    await check_storage(*makers(tmp_path))


def test_descriptor_is_light() -> None:
    assert plugin.name == "sqlite"
    assert plugin.factory == "fanout.storage.sqlite.store:SqliteStorage"
