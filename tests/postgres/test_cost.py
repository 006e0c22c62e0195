"""What a notification to a single user costs on PostgreSQL, from `send` to settled: statements and round trips, by one
caller and by many.

The numbers are what is there. Lower them with the code; whoever adds a statement to this path argues it in the commit.
`NOTIFY`s, `BEGIN`s and `COMMIT`s count as what they are, and what the engine asks by the clock is not counted (see
`counter`).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

import fanout
from fanout import bootstrap
from fanout.core.model import Target
from fanout.core.policy import Policy
from fanout.core.records import Put, Submission
from fanout.engine import Engine, EngineOptions
from fanout.plugin import StorageContext
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedTransport

from .conftest import Databases
from .counter import Counting

pytestmark = [pytest.mark.anyio, pytest.mark.external]

ONE_STATEMENTS, ONE_TRIPS = 26, 18
"""Of each send by one caller, which waits until it is settled before it sends the next: three transactions (put, lease,
settlement) of 7 to 8 statements with BEGIN and COMMIT, one read of the endpoints, one look at what else is due, two
NOTIFYs."""
MANY_STATEMENTS, MANY_TRIPS = 0.5, 0.4
"""Of each send where 200 callers do so: 0.24-0.29 and 0.18-0.22 are counted, for those that wait at a time share a
transaction, and how many these are is a matter of timing. A statement for each of them would be one more."""
USERS = 100


@asynccontextmanager
async def counted(databases: Databases) -> AsyncIterator[tuple[Engine, Counting]]:
    """An engine that is warm, and its way to the database."""
    server, name = databases.server, await databases.lend()
    async with Counting(server.port) as counting:
        url = server.url(name).replace(f":{server.port}/", f":{counting.port}/")
        clock = bootstrap.SystemClock()
        storage = Registry().make_storage(url, StorageContext(clock=clock))
        transports = {("default", "push"): ScriptedTransport()}
        options = EngineOptions(clock=clock, rng=random.Random(), policy=Policy())
        async with Engine(storage, transports, options) as engine:
            devices = (
                json.dumps({"user": f"u{number}", "transport": "push", "address": f"device-{number}"}).encode()
                for number in range(USERS)
            )
            assert (await engine.endpoints.import_(devices)).imported == USERS
            await sent(engine, 10, callers=5)
            counting.clear()
            yield engine, counting
    await databases.give_back(name)


async def sent(engine: Engine, sends: int, *, callers: int) -> None:
    numbers = iter(range(sends))

    async def caller() -> None:
        for number in numbers:
            sending = await engine.send(fanout.Notification(title="Hello"), f"user:u{number % USERS}")
            assert (await sending.wait(60)).counts["accepted"] == 1

    await asyncio.gather(*(caller() for _ in range(callers)))


async def test_a_send_by_one_caller(databases: Databases) -> None:
    async with counted(databases) as (engine, counting):
        await sent(engine, 20, callers=1)
        statements, trips = counting.each(20)

    asked = "\n".join(f"{count / 20:.2f} {text}" for text, count in counting.statements.most_common())
    assert statements <= ONE_STATEMENTS, asked
    assert trips <= ONE_TRIPS, asked


async def test_a_send_by_many_callers(databases: Databases) -> None:
    async with counted(databases) as (engine, counting):
        await sent(engine, 400, callers=200)

    asked = "\n".join(f"{count / 400:.3f} {text}" for text, count in counting.statements.most_common())
    statements, trips = counting.mean(400)
    assert statements <= MANY_STATEMENTS, asked
    assert trips <= MANY_TRIPS, asked


async def test_the_counter_sees_a_statement_that_is_added(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counted(databases) as (engine, counting):
        await sent(engine, 10, callers=1)
        statements, trips = counting.each(10)
        put = engine.storage.put

        async def one_more(submissions: Sequence[Submission], now: float) -> list[Put]:
            await engine.storage.count_endpoints("default", Target.user("u0"))
            return await put(submissions, now)

        monkeypatch.setattr(engine.storage, "put", one_more)
        counting.clear()
        await sent(engine, 10, callers=1)

        assert counting.each(10) >= (statements + 1, trips + 1)
