"""Leases that storage made and whose answers were lost: given back by their own worker, and never while a call may
bring them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import SystemClock, make_storage, register, running

from fanout.core.model import Notification
from fanout.errors import StorageUnavailable
from fanout.plugin import Policy, Storage, StorageContext
from fanout.registry import Registry

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")
QUICK = Policy(lease=60.0, heartbeat=1.0, request_timeout=2.0)
"""A lease of a minute: what is sent within seconds has not waited for its end."""


@pytest.fixture(autouse=True)
def backend(tmp_path: Path, no_blocking_call: None) -> Iterator[None]:
    """One file for all engines of a test."""
    context = StorageContext(clock=SystemClock())
    token = make_storage.set(lambda: Registry().make_storage(f"sqlite:{tmp_path}/strays.db", context))
    yield
    make_storage.reset(token)


class Deaf:
    """A storage whose leases are committed, and answered as `hear` says."""

    def __init__(self, storage: Storage, hear: Callable[[list[Any]], Any]) -> None:
        self._storage = storage
        self._hear = hear

    async def lease(self, *arguments: Any, **named: Any) -> Any:
        return await self._hear(await self._storage.lease(*arguments, **named))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def __aenter__(self) -> Deaf:
        await self._storage.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._storage.__aexit__(*exc)


async def test_a_lease_whose_answer_was_lost_is_under_way_again_at_once() -> None:
    lost: list[Any] = []

    async def hear(chunks: list[Any]) -> Any:
        if chunks and len(lost) < 2:
            lost.append(chunks[0])
            raise StorageUnavailable("the connection was lost")
        return chunks

    storage: Any = Deaf(make_storage.get()(), hear)
    async with running(storage=storage, policy=QUICK) as (engine, transport):
        await register(engine, "alice", "one", "two")
        receipt = await engine.send(HI, "user:alice")
        assert (await receipt.wait(60)).counts["accepted"] == 2
        assert transport.calls == 2
        steps = await engine.explain(receipt.id, 1)
        assert [step.what for step in steps if step.what == "taken over"] == [], "it counts as no crash"
        assert lost[1].epoch > lost[0].epoch


async def test_what_a_call_under_way_may_still_bring_is_not_given_back() -> None:
    going = asyncio.Event()
    asked = asyncio.Event()
    kept: list[Any] = []

    async def hear(chunks: list[Any]) -> Any:
        if chunks and not kept:
            kept.extend(chunks)
            asked.set()
            await going.wait()
        return chunks

    storage: Any = Deaf(make_storage.get()(), hear)
    async with running(storage=storage, policy=QUICK, rng=random.Random(2)) as (engine, transport):
        await register(engine, "alice", "one")
        receipt = await engine.send(HI, "user:alice")
        await asked.wait()
        strays = engine._membership._strays
        for _ in range(3):
            await strays.give_back(SystemClock.now())
            assert await storage.fleet.holdings(engine.worker, SystemClock.now()) == [(kept[0].id, kept[0].epoch)]
        assert transport.calls == 0
        going.set()
        assert (await receipt.wait(60)).counts["accepted"] == 1
        assert transport.calls == 1


async def test_what_was_dropped_for_its_results_is_left_to_run_out() -> None:
    """Given back at once, it would be sent again and again."""
    storage = make_storage.get()()
    async with running(storage=storage, policy=Policy(heartbeat=600.0), role="work") as (engine, _):
        (dispatcher,) = engine._dispatchers
        dispatcher.stopping = True
        dispatcher.state.signal.set()
        await dispatcher.ended.wait()
        await register(engine, "alice", "one")
        await engine.send(HI, "user:alice")
        (chunk,) = await storage.lease(
            engine.worker, "default", "push", 1, limit=1, now=SystemClock.now(), until=SystemClock.now() + 60
        )
        key = chunk.id, chunk.epoch
        engine._settler.dropped.add(key)
        strays = engine._membership._strays
        await strays.give_back(SystemClock.now())
        assert await storage.fleet.holdings(engine.worker, SystemClock.now()) == [key]
        engine._settler.dropped.clear()
        await strays.give_back(SystemClock.now())
        assert await storage.fleet.holdings(engine.worker, SystemClock.now()) == []
