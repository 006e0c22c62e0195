"""The end of a long outage, on a clock that jumps to whatever is due next: the work that waited goes within seconds."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from jumping import JumpingLoop, jumping
from rig import SystemClock, running

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.engine.bringing_forward import bring_forward
from fanout.plugin import ACCEPTED, Outcome, Policy, Scope, StorageContext, Unavailable
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

USERS = 60


class Outage:
    """A gateway that is away from the second `begin` to the second `end` of the loop."""

    def __init__(self, loop: JumpingLoop, answer: Unavailable, lasts: float) -> None:
        self._loop = loop
        self._answer = answer
        self.end = loop.time() + lasts
        self.tried = 0
        self.accepted: list[float] = []

    def script(self, message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if self._loop.time() < self.end:
            self.tried += 1
            return self._answer
        self.accepted.append(self._loop.time())
        return ACCEPTED


UNCONNECTED = Unavailable("no", Scope.GROUP, "connect", named=False)
FAILING = Unavailable("unknown", Scope.ENDPOINT, "ServiceUnavailable")


async def outlast(loop: JumpingLoop, answer: Unavailable, lasts: float, workers: int) -> Outage:
    storage = MemoryStorage("", StorageContext(clock=loop))
    storage.shared = True  # type: ignore[misc]
    outage = Outage(loop, answer, lasts)

    def engine(seed: int, **named: Any) -> Any:
        return running(storage=storage, clock=loop, rng=random.Random(seed), policy=Policy(), **named)

    async with engine(0, role="submit") as (submitter, _), AsyncExitStack() as stack:
        for n in range(USERS):
            await submitter.endpoints.register(user=f"u{n}", binding="push", address=f"a{n}")
        for n in range(workers):
            transports = {("default", "push"): ScriptedTransport(outage.script)}
            await stack.enter_async_context(engine(n + 1, role="work", transports=transports))
        for n in range(USERS):
            await submitter.send(Notification(title="Hi"), f"user:u{n}")
        broadcast = await submitter.send(Notification(title="Hi"), "all")
        assert (await broadcast.wait(2 * lasts)).counts["accepted"] == USERS
        while len(outage.accepted) < 2 * USERS:
            await storage.changes()
    return outage


@pytest.fixture(autouse=True)
def backend() -> None:
    """Storage is chosen here."""


@pytest.mark.parametrize(("lasts", "workers"), [(20.0, 1), (100.0, 1), (100.0, 2)])
def test_after_an_outage_of_connections_all_that_waited_goes_within_seconds(lasts: float, workers: int) -> None:
    outage = jumping(lambda loop: outlast(loop, UNCONNECTED, lasts, workers))
    late = [at - outage.end for at in outage.accepted]
    assert min(late) <= 1.5
    assert max(late) <= 10.0, sorted(late)
    assert outage.tried <= workers * (2 * lasts + USERS), "one delivery in each half a second"


@pytest.mark.anyio
async def test_a_storage_of_an_earlier_version_brings_nothing_forward() -> None:
    async with running(storage=MemoryStorage("", StorageContext(clock=SystemClock()))) as (engine, _):
        (state,) = engine._states
        state.rescheduling.opened(1000.0)
        await bring_forward(state, object(), 1002.0)  # type: ignore[arg-type]
        assert state.rescheduling.wait(1002.0) == float("inf")


def test_after_an_outage_of_failures_all_that_waited_goes_in_an_eighth_of_its_time() -> None:
    outage = jumping(lambda loop: outlast(loop, FAILING, 200.0, 2))
    assert max(at - outage.end for at in outage.accepted) <= 200.0 / 8 + 10.0
