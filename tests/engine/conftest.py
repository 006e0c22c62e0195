"""Runs every test of the engine on each storage backend; and makes `rig` importable under `--import-mode=importlib`.

An idle dispatcher looks by itself only once an hour here, so that a signal which does not come hangs its test.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fanout.engine import dispatcher
from fanout.plugin import Storage, StorageContext
from fanout.registry import Registry
from tests.postgres.conftest import Databases, databases, server

__all__ = ["databases", "server"]

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))

T = TypeVar("T")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test runs on every storage. On PostgreSQL, which takes ten times as long as SQLite, a table of arguments
    has one row: the decisions of its other rows are made above the storage."""
    seen: set[object] = set()
    for item in items:
        if _HERE not in item.path.parents or not hasattr(item, "callspec"):
            continue
        arguments = item.callspec.params
        if arguments.get("backend") == "postgres" and len(arguments) > 1:
            if item.obj in seen:
                item.add_marker(pytest.mark.long("the first row of these arguments, and all of them on SQLite"))
            seen.add(item.obj)


@pytest.fixture(autouse=True)
def told_or_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_POLL", 3600.0)


@pytest.fixture(autouse=True, params=["memory", "sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    from rig import SystemClock, make_storage, reopen

    numbers = itertools.count()
    made: list[str] = []
    on: Databases | None = None
    if request.param == "postgres":
        on = request.getfixturevalue("databases")  # skips by name where no server is installed
    else:
        request.getfixturevalue("no_blocking_call")  # asyncpg reads files when it connects

    def location() -> str:
        if on is None:
            return "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/{next(numbers)}.db"
        made.append(elsewhere(lambda: asyncio.run(on.lend())))
        return on.server.url(made[-1])

    def opened(at: str) -> Storage:
        return Registry().make_storage(at, StorageContext(clock=SystemClock()))

    def again(storage: Storage) -> Storage:
        if on is not None:
            return opened(on.server.url(storage.location.rpartition("/")[2]))
        return storage if request.param == "memory" else opened(f"sqlite:{storage.location}")

    tokens = make_storage.set(lambda: opened(location())), reopen.set(again)
    yield
    make_storage.reset(tokens[0])
    reopen.reset(tokens[1])
    for name in made:
        elsewhere(lambda name=name: asyncio.run(on.give_back(name)))


def elsewhere(call: Callable[[], T]) -> T:
    """What `call` answers in a thread of its own: it blocks, and a test's loop may be running here."""
    answer: list[T] = []
    thread = threading.Thread(target=lambda: answer.append(call()))
    thread.start()
    thread.join()
    return answer[0]
