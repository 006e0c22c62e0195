"""What may be sent twice: after a crash, and by a worker whose database has gone silent. On a clock that jumps."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from jumping import JumpingLoop, jumping
from rig import running

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.engine.settler import OVERDUE
from fanout.plugin import ACCEPTED, Outcome, Policy, StorageContext
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

RATE, IN_FLIGHT = 500, 300
"""Deliveries a second, and under way at once: an answer takes 0.6 s."""
POLICY = Policy()


@pytest.fixture(autouse=True)
def backend() -> None:
    """Storage is chosen here."""


class Silent(MemoryStorage):
    """A database that stores no settlement and answers none until it `speaks`."""

    def __init__(self, context: StorageContext) -> None:
        super().__init__("", context)
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.stored = 0

    async def settle(self, settlements: Any, now: float) -> Any:
        await self.speaks.wait()
        answers = await super().settle(settlements, now)
        for settlement, answer in zip(settlements, answers, strict=True):
            self.stored += 0 if answer.stale else sum(map(len, settlement.results.values()))
        return answers


class Trial:
    """A broadcast, in the middle of which the database goes silent."""

    def __init__(self, loop: JumpingLoop) -> None:
        self.loop = loop
        self.storage = Silent(StorageContext(clock=loop))
        self.sent: list[float] = []
        self.crash = self.partition = 0
        """What is sent again after a crash at the worst moment before that, and what once it has been silent for
        long."""
        self._rng = random.Random(1)

    def script(self, message: ScriptedMessage, delivery: Delivery) -> asyncio.Future[Outcome]:
        self.sent.append(self.loop.time())
        if 1000 < len(self.sent) < 2000:  # by then they no longer come in waves
            self.crash = max(self.crash, len(self.sent) - self.storage.stored)
        future: asyncio.Future[Outcome] = self.loop.create_future()
        self.loop.call_later(self._rng.uniform(0.3, 0.9), lambda: future.done() or future.set_result(ACCEPTED))
        return future

    async def run(self) -> Trial:
        transport = ScriptedTransport(self.script, capacity=IN_FLIGHT)
        more: Any = {"clock": self.loop, "rng": random.Random(1), "transports": {("default", "push"): transport}}
        async with running(storage=self.storage, policy=POLICY, **more) as (engine, _):
            for n in range(3000):
                await engine.endpoints.register(user=f"u{n}", binding="push", address=f"a{n}")
            await engine.send(Notification(title="Hi"), "all")
            while len(self.sent) < 2000:
                await asyncio.sleep(0.01)
            self.storage.speaks.clear()
            await asyncio.sleep(5.0)
            self.partition = len(self.sent) - self.storage.stored
            self.storage.speaks.set()
        return self

    def most(self, seconds: float) -> int:
        """The most that were sent in so many seconds, before the silence."""
        sent = self.sent[1000:2000]
        return max(sum(begun <= at <= begun + seconds for at in sent) for begun in sent[::5])


def test_duplicates_are_bounded() -> None:
    trial = jumping(lambda loop: Trial(loop).run())
    short, long = POLICY.checkpoint, POLICY.checkpoint + OVERDUE
    assert IN_FLIGHT < trial.crash <= IN_FLIGHT + trial.most(short), "in flight + rate x checkpoint"
    assert IN_FLIGHT + 0.8 * RATE < trial.partition <= IN_FLIGHT + trial.most(long), (
        "in flight + rate x (checkpoint + 1 s)"
    )
    assert IN_FLIGHT + RATE * long == 825
    assert trial.crash <= 325 * 1.1, "at the rate that is meant"
    assert trial.partition <= 825 * 1.1
