"""The state machine of a delivery's life, run against PostgreSQL. `--soak` searches for longer, and elsewhere each
time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Life

from fanout.plugin import Storage
from fanout.storage.postgres.store import PostgresStorage
from fanout_kit.postgres import MISSING, PostgresServer, find_programs
from tests.postgres.books import unbalanced
from tests.postgres.conftest import Databases, opened

pytestmark = [pytest.mark.timeout(3600), pytest.mark.external]


class Waited:
    """A storage whose coroutines end at their first step, because a loop of its own runs them to their end
    meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, storage: PostgresStorage) -> None:
        self._loop = loop
        self._storage = storage

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._storage, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return self._loop.run_until_complete(method(*arguments, **named))

        return call


class InPostgres(Life):
    """A database, which a crash leaves and opens again. In the end its books must balance."""

    databases: Databases

    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.name = self.loop.run_until_complete(self.databases.lend())
        self._open()

    def _open(self) -> None:
        self.opened = opened(self.databases.server, self.name, self.context, pool=1)
        self.loop.run_until_complete(self.opened.__aenter__())
        self.storage = cast(Storage, Waited(self.loop, self.opened))

    def close(self) -> None:
        run = self.loop.run_until_complete
        run(self.opened.__aexit__())
        wrong = run(unbalanced(self.databases.server.url(self.name)))
        run(self.databases.give_back(self.name))
        self.loop.close()
        assert wrong == {}, "the books balance"

    def reopen(self) -> None:
        self.loop.run_until_complete(self.opened.__aexit__())
        self._open()


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    if find_programs() is None:
        pytest.skip(MISSING)
    with PostgresServer.start() as server:
        yield Databases(server)


def test_every_promise_is_kept(databases: Databases, request: pytest.FixtureRequest) -> None:
    soak = request.config.getoption("--soak")
    InPostgres.databases = databases
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        InPostgres,
        settings=settings(
            max_examples=500 if soak else 3,
            stateful_step_count=80 if soak else 50,
            derandomize=not soak,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
