"""The model and SQLite side by side under arbitrary histories of a feed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from feedmachine import Feeds
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from fanout.storage.sqlite.store import Inline, SqliteStorage

MEMORY = "/dev/shm"


class SqliteFeeds(Feeds):
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fanout-feed-", dir=MEMORY if os.path.isdir(MEMORY) else None))
        super().__init__()

    def opened(self) -> SqliteStorage:
        return SqliteStorage(str(self.folder / "model.db"), self.context, offload=Inline)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


@pytest.mark.timeout(3600)
def test_the_model_and_sqlite_keep_one_feed(request: pytest.FixtureRequest) -> None:
    run_state_machine_as_test(
        SqliteFeeds,
        settings=settings(
            max_examples=200 if request.config.getoption("--soak") else 15,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
