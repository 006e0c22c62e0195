"""Four workers on one queue, on a clock that jumps to whatever is due next: what one leases ahead keeps nothing from
the others."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from jumping import JumpingLoop, jumping
from rig import running

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.engine import Engine
from fanout.plugin import ACCEPTED, Outcome, Policy, StorageContext
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

ANSWER = 0.2
"""Seconds in which the gateway answers."""
ROOM = 20
"""Deliveries that a worker's connections take at once."""


class Fleet:
    """Workers, and when each sent what."""

    def __init__(self, loop: JumpingLoop, storage: MemoryStorage) -> None:
        self.loop = loop
        self.storage = storage
        self.sent: list[list[float]] = []

    def engine(self, **named: Any) -> Any:
        return running(storage=self.storage, clock=self.loop, rng=random.Random(len(self.sent)), **named)

    def worker(self, answer: float = ANSWER) -> Any:
        times: list[float] = []
        self.sent.append(times)

        def script(message: ScriptedMessage, delivery: Delivery) -> Outcome | asyncio.Future[Outcome]:
            times.append(self.loop.time())
            future: asyncio.Future[Outcome] = self.loop.create_future()
            self.loop.call_later(answer, lambda: future.done() or future.set_result(ACCEPTED))
            return future

        transports = {("default", "push"): ScriptedTransport(script, capacity=ROOM)}
        return self.engine(role="work", policy=Policy(), transports=transports)

    @property
    def last(self) -> float:
        return max(max(times) for times in self.sent)


async def registered(engine: Engine, count: int) -> None:
    for n in range(count):
        await engine.endpoints.register(user=f"u{n}", binding="push", address=f"a{n}")


async def deliver(fleet: Fleet, kind: str, count: int, workers: int) -> float:
    """Virtual seconds until the last of so many deliveries was sent."""
    async with fleet.engine(role="submit") as (engine, _), AsyncExitStack() as stack:
        await registered(engine, count)
        for _ in range(workers):
            await stack.enter_async_context(fleet.worker())
        began = fleet.loop.time()
        if kind in ("broadcast", "at_most_once"):
            repeat: Any = "at_most_once" if kind == "at_most_once" else "prefer_delivery"
            receipts = [await engine.send(Notification(title="Hi", repeat=repeat), "all")]
        else:
            note = Notification(title="Hi", lane="urgent" if kind == "urgent" else "normal")
            receipts = await engine.send_many([(note, f"user:u{n}") for n in range(count)])
        each = count // len(receipts)
        for receipt in receipts:
            assert (await receipt.wait(300)).counts["accepted"] == each
        assert sum(map(len, fleet.sent)) == count, "each once"
        return fleet.last - began


def shared_memory(loop: JumpingLoop) -> MemoryStorage:
    """One for all engines of the loop."""
    storage = MemoryStorage("", StorageContext(clock=loop))
    storage.shared = True  # type: ignore[misc]
    return storage


def seconds(kind: str, count: int, workers: int) -> float:
    return jumping(lambda loop: deliver(Fleet(loop, shared_memory(loop)), kind, count, workers))


@pytest.fixture(autouse=True)
def backend() -> None:
    """Storage is chosen here."""


def test_urgent_singles_are_sent_within_two_seconds() -> None:
    assert seconds("urgent", 400, 4) <= 2.0


@pytest.mark.parametrize("kind", ["single", "broadcast"])
def test_four_workers_bring_over_three_times_one(kind: str) -> None:
    assert seconds(kind, 1600, 4) <= 1600 / ROOM * ANSWER / 3.2


@pytest.mark.parametrize("kind", ["single", "broadcast"])
def test_the_connections_of_one_are_never_idle(kind: str) -> None:
    assert seconds(kind, 400, 1) <= 400 / ROOM * ANSWER * 1.05


def test_what_is_marked_in_doubt_is_given_back_as_not_sent() -> None:
    """Each once, and accepted: `deliver` looks."""
    assert seconds("at_most_once", 1100, 2) > 0
