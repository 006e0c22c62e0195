"""Runs every test of the engine on each storage backend; and makes `rig` importable under `--import-mode=importlib`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.plugin import Storage, StorageContext
from fanout.registry import Registry

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, no_blocking_call: None) -> Iterator[None]:
    from rig import SystemClock, make_storage

    names = (
        f"{request.param}:{tmp_path}/{n}.db" if request.param == "sqlite" else "memory:" for n in itertools.count()
    )

    def make() -> Storage:
        return Registry().make_storage(next(names), StorageContext(clock=SystemClock()))

    token = make_storage.set(make)
    yield
    make_storage.reset(token)
