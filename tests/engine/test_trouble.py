"""What passes ends no engine; what the database cannot hold ends as dead, and nothing beside it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from rig import fresh_storage, register, running
from test_faults import Failing

from fanout.core.model import Notification
from fanout.engine import Engine, settler
from fanout.engine.observing import observe
from fanout.engine.patience import Trouble
from fanout.errors import ContentRefused, StorageError, StorageFull, StorageRefused, StorageUnavailable
from fanout.metrics.families import families
from fanout.metrics.text import page
from fanout.plugin import ACCEPTED, Outcome, Settlement
from fanout.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")
LOOPS = [
    "lease",
    "waiting",
    "settle",
    "extend",
    "expire",
    "prune",
    "changes",
    "controls",
    "gates",
    "post_gates",
    "resolve",
]


@pytest.mark.parametrize("error", [StorageUnavailable("away"), StorageFull("full"), StorageRefused("no right")])
@pytest.mark.parametrize("name", LOOPS)
async def test_whatever_passes_ends_nothing(name: str, error: Exception) -> None:
    storage: Any = Failing(fresh_storage(), **{name: [error] * 2})
    async with running(storage=storage) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        assert (await receipt.wait(60)).counts["accepted"] == 1
        assert engine.fault is None
        assert len(transport.sends) == 1


async def test_what_storage_refuses_is_named_until_it_does_not() -> None:
    refused: list[Exception] = [StorageRefused("no right to write")] * 100
    storage: Any = Failing(fresh_storage(), settle=refused)
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        while not engine.trouble.problem:
            await asyncio.sleep(0.001)
        assert (engine.trouble.problem, engine.trouble.kind) == ("no right to write", "refused")
        assert 'fanout_storage_trouble{kind="refused"} 1' in told(engine)
        refused.clear()
        assert (await receipt.wait(60)).counts["accepted"] == 1
        while engine.trouble.problem:
            await asyncio.sleep(0.001)
        lines = told(engine)
        assert 'fanout_storage_trouble{kind="refused"} 0' in lines
        assert "fanout_storage_trouble_seconds 0.0" in lines


def told(engine: Engine) -> list[str]:
    return page(families(observe(engine), None, None, "1")).decode().splitlines()


async def test_pauses_differ_and_grow_and_end() -> None:
    clock = VirtualClock(0.0)
    trouble = Trouble(clock, random.Random(1))
    one, other = trouble.patience(), trouble.patience()
    pauses = [one.failed(StorageUnavailable("x")) for _ in range(12)]
    assert 0.12 < pauses[0] <= 0.25
    assert max(pauses) <= 2.0
    assert len(set(pauses)) == 12, "no two processes ask in step"
    clock.advance(3.0)
    other.failed(StorageFull("y"))
    assert (trouble.problem, trouble.kind, trouble.seconds) == ("y", "full", 3.0)
    other.well()
    assert (trouble.problem, trouble.kind) == ("x", "unavailable")
    one.well()
    assert (trouble.problem, trouble.kind, trouble.seconds) == ("", "", 0.0)
    assert one.failed(StorageUnavailable("x")) <= 0.25


async def test_the_log_has_one_cause_of_a_refusal_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Also where nothing is under way whose result could not be stored; and no flood where storage comes and goes."""
    clock = VirtualClock(0.0)
    trouble = Trouble(clock, random.Random(1))
    one, other = trouble.patience(), trouble.patience()
    for _ in range(100):
        one.failed(StorageFull("The disk is full: make room."))
        other.failed(StorageUnavailable("x"))
    other.well()
    assert caplog.messages == ["Work waits for the database: The disk is full: make room."]
    one.well()
    assert caplog.messages[1:] == ["The database does its work again."]
    for _ in range(100):
        clock.advance(1.0)
        one.failed(StorageUnavailable("y"))
        one.well()
    assert len(caplog.messages) == 4, "one in a minute"
    one.failed(ContentRefused("z"))
    one.well()
    trouble.told = True  # the settler has said it
    one.failed(StorageUnavailable("y"))
    one.well()
    assert len(caplog.messages) == 4
    assert not trouble.told


async def test_a_refused_lease_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    storage: Any = Failing(fresh_storage(), lease=[StorageUnavailable("It is locked: see by what.")])
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        await (await engine.send(HI, "user:alice")).wait(60)
    told = [record.message for record in caplog.records if record.name == "fanout.engine"]
    assert told == ["Work waits for the database: It is locked: see by what.", "The database does its work again."]


async def test_what_is_fatal_ends_the_engine() -> None:
    storage: Any = Failing(fresh_storage(), settle=[StorageError("the disk is damaged")])
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        await engine.send(HI, "user:alice")
        with pytest.raises(StorageError, match="damaged"):
            await engine.failed()


class Picky(Failing):
    """A storage that cannot hold what comes of some endpoints."""

    def __init__(self, storage: Any, bad: Callable[[Settlement], bool]) -> None:
        super().__init__(storage)
        self._bad = bad
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        if name != "settle":
            return super().__getattr__(name)
        return self._settle

    async def _settle(self, settlements: list[Settlement], now: float) -> Any:
        if any(map(self._bad, settlements)):
            self.refused += 1
            raise ContentRefused("A text cannot be stored.")
        return await self._storage.settle(settlements, now)


def about(position: int) -> Callable[[Settlement], bool]:
    def bad(settlement: Settlement) -> bool:
        return any(
            position in positions and state != "dead" for (state, _), positions in settlement.results.items()
        ) or any(row.position == position for row in settlement.retries)

    return bad


@pytest.mark.parametrize("repeat", ["prefer_delivery", "at_most_once"])
async def test_the_one_delivery_ends_as_dead_and_the_others_go_on(repeat: Any) -> None:
    storage: Any = Picky(fresh_storage(), about(13))
    async with running(storage=storage) as (engine, transport):
        for n in range(40):
            await register(engine, "alice", f"d{n}")
        status = await (await engine.send(Notification(title="Hi", repeat=repeat), "user:alice")).wait(60)
        assert storage.refused
        assert engine.fault is None
        assert status.counts["accepted"] == 39
        assert status.reasons["dead"] == {"cannot be stored": 1}
        assert len(transport.sends) == (40 if repeat == "prefer_delivery" else 39), "nothing is pushed twice"
        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 39
        found = [row async for row in engine.deliveries(status.id, state="dead")]
        assert [reason for _, _, reason in found] == ["cannot be stored"]


async def test_a_result_that_cannot_even_end_as_dead_ends_no_engine() -> None:
    storage: Any = Picky(fresh_storage(), lambda s: any(3 in positions for positions in s.results.values()))
    async with running(storage=storage) as (engine, transport):
        for n in range(8):
            await register(engine, "alice", f"d{n}")
        receipt = await engine.send(HI, "user:alice")
        while (status := await receipt.status()).counts["accepted"] < 7:
            await asyncio.sleep(0.001)
        assert engine.fault is None
        assert status.counts["pending"] == 1
        await register(engine, "bob", "b")
        transport.script = lambda message, delivery: ACCEPTED
        assert (await (await engine.send(HI, "user:bob")).wait(60)).counts["accepted"] == 1


async def test_a_lease_that_is_refused_for_its_content_ends_no_engine() -> None:
    refused: list[Exception] = [ContentRefused("A constraint.")] * 3
    storage: Any = Failing(fresh_storage(), lease=refused)
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1


async def test_another_database_than_before_is_looked_at_anew() -> None:
    """Holds of endpoints, what operators had asked, parts of rates: they were of the old one."""
    storage: Any = Failing(fresh_storage())
    async with running(storage=storage) as (engine, _):
        (phone,) = await register(engine, "alice", "phone")
        (state,) = engine._settler.states
        while engine._upkeep._incarnation is None:
            await asyncio.sleep(0.001)
        state.holds.add(phone, engine._clock.now() + 3600)
        engine._upkeep._nudges["default", "push"] = 7
        storage.incarnation = 1
        while engine._upkeep._incarnation != 1:
            await asyncio.sleep(0.001)
        assert not state.holds
        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
        assert engine._upkeep._nudges.get(("default", "push"), 0) == 0


async def test_nothing_more_is_sent_once_a_settlement_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that says nothing at all: no error comes that would tell."""
    monkeypatch.setattr(settler, "OVERDUE", 0.1)
    silent, asked = asyncio.Event(), asyncio.Event()
    storage: Any = Failing(fresh_storage())
    real = storage._storage.settle

    async def settle(settlements: Any, now: float) -> Any:
        asked.set()
        await silent.wait()
        return await real(settlements, now)

    async def slowly() -> Outcome:
        await asyncio.sleep(0.005)
        return ACCEPTED

    storage.settle = settle
    async with running(storage=storage) as (engine, transport):
        transport.capacities[""] = 8
        transport.script = lambda message, delivery: slowly()
        for n in range(400):
            await register(engine, f"u{n}", f"d{n}")
        receipt = await engine.send(HI, "all")
        await asked.wait()
        while not engine._settler.stuck:
            await asyncio.sleep(0.001)
        so_far = len(transport.sends)
        while transport.in_flight:
            await asyncio.sleep(0.001)
        assert so_far < 400, "or nothing was left to hold"
        assert len(transport.sends) <= so_far + 8, "what was under way, and nothing more"
        silent.set()
        assert (await receipt.wait(60)).counts["accepted"] == 400
        assert len(transport.sends) == 400
