"""What the tests of the SQLite storage share: makers of storages for the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from fanout.plugin import StorageContext
from fanout.storage.sqlite.store import SqliteStorage, Thread
from fanout.storage.sqlite.worker import Offload
from fanout.testing.storage import Maker


@pytest.fixture
def makers(tmp_path: Path) -> Callable[..., tuple[Maker, Maker]]:
    """For an offload, two makers: of a fresh file each time (`0.db`, `1.db`, …), and of the last one, opened again."""

    def made(offload: Callable[[], Offload] = Thread) -> tuple[Maker, Maker]:
        numbers = count()
        last = [tmp_path / "none.db"]

        @asynccontextmanager
        async def fresh(context: StorageContext) -> AsyncIterator[SqliteStorage]:
            last[0] = tmp_path / f"{next(numbers)}.db"
            async with SqliteStorage(str(last[0]), context, offload=offload) as storage:
                yield storage

        @asynccontextmanager
        async def again(context: StorageContext) -> AsyncIterator[SqliteStorage]:
            async with SqliteStorage(str(last[0]), context, offload=offload) as storage:
                yield storage

        return fresh, again

    return made
