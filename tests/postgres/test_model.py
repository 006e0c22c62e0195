"""Memory and PostgreSQL side by side under arbitrary histories of the queue: the machine of `tests/storage`."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fanout.core.endpoint import Endpoint
from fanout.core.model import Target
from fanout.core.records import Chunk, EndpointRow, Event, Settlement, Submission
from fanout.core.shard import SHARDS
from fanout.plugin import Storage, StorageContext
from tests.storage.test_model import Storages

if TYPE_CHECKING:
    from tests.postgres.conftest import Databases

pytestmark = [pytest.mark.external, pytest.mark.timeout(1800)]


class Numbered:
    """A storage for whom the n-th endpoint has the id n, the n-th event the number n, and the n-th lease of a chunk the
    epoch n; each call ends at its first step."""

    def __init__(
        self,
        storage: Storage,
        runner: asyncio.Runner,
        known: dict[int, int],
        epochs: dict[int, list[int]],
        events: list[int],
    ) -> None:
        self._storage = storage
        self._runner = runner
        self._known = known
        self._epochs = epochs
        self._events = events

    @property
    def fleet(self) -> Any:
        """The facet: it knows no numbers."""
        return Numbered(self._storage.fleet, self._runner, {}, {}, [])  # type: ignore[arg-type]

    @property
    def access(self) -> Any:
        """As `fleet`."""
        return Numbered(self._storage.access, self._runner, {}, {}, [])  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            given = [self._inwards(name, i, argument) for i, argument in enumerate(arguments)]
            if "after" in named:
                after = named["after"]
                named["after"] = (self._events[after - 1] if after else 0) if name == "events" else self._id(after)
            return self._outwards(name, self._runner.run(getattr(self._storage, name)(*given, **named)))

        return call

    async def __aenter__(self) -> Numbered:
        self._runner.run(self._storage.__aenter__())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._runner.run(self._storage.__aexit__())

    # -- from the n-th to its id

    def _id(self, number: int) -> int:
        return self._known.get(number, number * SHARDS)

    def _inwards(self, method: str, i: int, argument: Any) -> Any:
        match argument:
            case int() if method in ("get_endpoint", "explain") and i == 1:
                return self._id(argument)
            case array():
                return array("q", map(self._id, argument))
            case list() if method in ("remove_endpoints", "restore_endpoints"):
                return [self._id(number) for number in argument]
            case [(int(), int()), *_] if method == "extend":
                return [(chunk, self._epoch(chunk, epoch)) for chunk, epoch in argument]
            case [Submission(), *_]:
                return [replace(sub, target=self._target(sub.target)) for sub in argument]
            case [Settlement(), *_]:
                return [
                    replace(
                        each,
                        epoch=self._epoch(each.chunk, each.epoch),
                        changes=[replace(what, endpoint=self._id(what.endpoint)) for what in each.changes],
                    )
                    for each in argument
                ]
        return argument

    def _epoch(self, chunk: int, number: int) -> int:
        known = self._epochs.get(chunk, [])
        return known[number - 1] if 0 < number <= len(known) else number

    def _target(self, target: Target) -> Target:
        return Target.endpoints(map(self._id, target.ids)) if target.kind == "endpoints" else target

    # -- and back

    def _number(self, id: int) -> int:
        self._known[id // SHARDS] = id
        return id // SHARDS

    def _numbers(self, ids: Iterable[int]) -> list[int]:
        return [self._number(id) for id in ids]

    def _outwards(self, method: str, answer: Any) -> Any:
        match answer:
            case Endpoint() | EndpointRow():
                change = replace if isinstance(answer, Endpoint) else EndpointRow._replace
                return change(answer, id=self._number(answer.id))
            case Chunk():
                known = self._epochs.setdefault(answer.id, [])
                assert not known or answer.epoch > known[-1], "epochs only grow"
                known.append(answer.epoch)
                ids = array("q", self._numbers(answer.ids))
                return replace(answer, ids=ids, epoch=len(known), rows=None, stored=None)
            case Event():
                data = {
                    key: self._number(value) if key in ("endpoint", "by") else value
                    for key, value in answer.data.items()
                }
                # Of numbers that a transaction had drawn which was run again, there are gaps.
                if answer.id not in self._events:
                    self._events.append(answer.id)
                return replace(answer, id=self._events.index(answer.id) + 1, data=data)
            case set() if method == "superseded":
                return set(self._numbers(answer))
            case list() if method == "deliveries":
                return [(self._number(id), *rest) for id, *rest in answer]
            case list():
                return [self._outwards(method, each) for each in answer]
        return answer


class PostgresStorages(Storages):
    lender: Databases
    opener: Callable[[str, StorageContext], Storage]

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.name = self.runner.run(self.lender.lend())
        self.known: dict[int, int] = {}
        self.real_epochs: dict[int, list[int]] = {}
        self.real_events: list[int] = []
        super().__init__()

    def opened(self) -> Any:
        storage = Numbered(
            type(self).opener(self.name, self.context), self.runner, self.known, self.real_epochs, self.real_events
        )
        self.runner.run(storage._storage.__aenter__())
        return storage

    def teardown(self) -> None:
        super().teardown()
        self.runner.run(self.lender.give_back(self.name))
        self.runner.close()


def test_memory_and_postgres_answer_alike(
    databases: Databases, open_storage: Callable[..., Storage], request: pytest.FixtureRequest
) -> None:
    soak = request.config.getoption("--soak")
    made = type("Here", (PostgresStorages,), {"lender": databases, "opener": staticmethod(partial(open_storage))})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        made,
        settings=settings(
            max_examples=100 if soak else 3,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
