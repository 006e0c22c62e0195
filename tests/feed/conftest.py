"""Makes `feedrig` importable under `--import-mode=importlib`, and runs what uses `backend` on each storage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout_kit.postgres import MISSING, PostgresServer, find_programs

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for the tests of a process."""
    if find_programs() is None:
        pytest.skip(MISSING)
    with PostgresServer.start() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.external)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a storage is."""
    if request.param != "postgresql":
        yield "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/feed.db"
        return
    if not request.config.getoption("--soak"):
        pytest.skip(
            "takes too long for `make test`, where tests/postgres has the contract and two services: run `make soak`"
        )
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.fresh()
    yield server.url(name)
    server.drop(name)
