"""The state machine of a delivery's life, run against each storage. `--soak` searches for longer, and elsewhere each
time."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from checks import run
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Life

from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.storage.sqlite.store import Inline, SqliteStorage

pytestmark = pytest.mark.timeout(3600)

_MEMORY = "/dev/shm"
"""Where files cost no disk: what is tested is what is stored, not whether it survives a power loss."""


class InMemory(Life):
    """Nothing outlives the process, so that only workers crash."""

    def open(self) -> None:
        self.storage = run(MemoryStorage("", self.context).__aenter__())

    def close(self) -> None:
        run(self.storage.__aexit__())


class InSqlite(Life):
    """A file, which a crash closes and opens again."""

    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fanout-life-", dir=_MEMORY if os.path.isdir(_MEMORY) else None))
        self.storage = self._opened()

    def _opened(self) -> SqliteStorage:
        return run(SqliteStorage(str(self.folder / "life.db"), self.context, offload=Inline).__aenter__())

    def close(self) -> None:
        run(self.storage.__aexit__())
        shutil.rmtree(self.folder)

    def reopen(self) -> None:
        run(self.storage.__aexit__())
        self.storage = self._opened()


@pytest.mark.parametrize(("life", "short", "long"), [(InMemory, 20, 3000), (InSqlite, 10, 1000)])
def test_every_promise_is_kept(life: type[Life], short: int, long: int, request: pytest.FixtureRequest) -> None:
    soak = request.config.getoption("--soak")
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        life,
        settings=settings(
            max_examples=long if soak else short,
            stateful_step_count=80 if soak else 50,
            derandomize=not soak,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
