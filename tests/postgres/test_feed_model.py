"""Memory and PostgreSQL side by side under arbitrary histories of a feed: the machine of `tests/feed`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from fanout.core.counts import Counts
from fanout.core.endpoint import Endpoint
from fanout.core.feed import FeedItem, Subscription
from fanout.core.shard import SHARDS
from fanout.plugin import Storage, StorageContext
from tests.feed.feedmachine import Feeds

if TYPE_CHECKING:
    from tests.postgres.conftest import Databases

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

T = TypeVar("T")

PART = SHARDS.bit_length() - 1
"""Bits of an endpoint's id that say in which part of the directory it stands."""


class PostgresFeeds(Feeds):
    """The n-th endpoint has the id n here, whatever part of the directory it stands in; and an item's number only says
    its place."""

    lender: Databases
    opener: Callable[[str, StorageContext], Storage]

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.name = self.run(self.lender.lend())
        super().__init__()

    def opened(self) -> Storage:
        return type(self).opener(self.name, self.context)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        super().teardown()
        self.run(self.lender.give_back(self.name))
        self.runner.close()

    def alike(self, answer: Any, *, other: bool) -> Any:
        shift = PART if other else 0
        match answer:
            case Endpoint():
                return replace(answer, id=answer.id >> shift)
            case Subscription():
                return replace(answer, endpoint=answer.endpoint >> shift)
            case Counts():
                return replace(answer, seen=0)
            case FeedItem():
                return replace(answer, number=0)
            case (int() as id, str() as state, str() as reason):
                return (id >> shift, state, reason)
            case list() | tuple():
                return [self.alike(each, other=other) for each in answer]
        if is_dataclass(answer) and not isinstance(answer, type):
            parts = [getattr(answer, field.name) for field in fields(answer)]
            return [type(answer), *(self.alike(part, other=other) for part in parts)]
        return answer


def test_memory_and_postgres_keep_one_feed(
    databases: Databases, open_storage: Callable[..., Storage], request: pytest.FixtureRequest
) -> None:
    class Here(PostgresFeeds):
        lender, opener = databases, staticmethod(open_storage)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=100 if request.config.getoption("--soak") else 3,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
