"""Clocks that are set and machines that are suspended: seen once, and what was made by the old clock waits no longer
than it was to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import pytest
from rig import fresh_storage, register

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.core.policy import Policy
from fanout.core.records import Settled, Settlement
from fanout.engine import Engine, EngineOptions
from fanout.engine.watch import ClockWatch
from fanout.errors import StorageUnavailable
from fanout.plugin import ACCEPTED, Outcome, Scope, Throttled, Unavailable
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HOURS = 3600.0
HI = Notification(title="Hi", ttl=24 * HOURS)


class Asleep(VirtualClock):
    """One that can be suspended: time passes, and nobody is awake."""

    __slots__ = ("slept",)

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0

    def awake(self) -> float:
        return self.monotonic() - self.slept

    def suspend(self, seconds: float) -> None:
        self.advance(seconds)
        self.slept += seconds


def test_steps_and_suspends_are_told_apart() -> None:
    clock = Asleep()
    watch = ClockWatch(clock)
    clock.advance(10 * HOURS)
    assert (watch.look(), watch.suspends) == (0, 0), "time passes"
    clock.step(0.9)
    assert watch.look() == 0, "a time server's slew"
    clock.step(0.9)
    assert (watch.look(), watch.set_back) == (1, False), "adds up"
    clock.step(-HOURS)
    assert (watch.look(), watch.set_back) == (2, True)
    assert watch.look() == 2, "once"
    clock.suspend(7200.0)
    assert (watch.look(), watch.suspends) == (2, 1), "a suspend is no step, for the monotonic clock counts it"
    clock.step(HOURS)
    clock.suspend(5.0)
    assert (watch.look(), watch.suspends, watch.set_back) == (3, 2, False)
    assert watch.back == HOURS


def test_what_was_before_a_database_was_asked_is_no_step() -> None:
    clock = VirtualClock()
    watch = ClockWatch(clock)
    clock.step(8 * HOURS)
    watch.begin()
    assert watch.look() == 0


def test_a_clock_that_knows_no_sleep_sees_no_suspend() -> None:
    clock = VirtualClock()
    watch = ClockWatch(clock)
    clock.advance(HOURS)
    watch.look()
    assert watch.suspends == 0


class Off:
    """This machine's clock, `seconds` ahead."""

    def __init__(self, seconds: float) -> None:
        self.seconds = self.slept = 0.0
        self.seconds = seconds

    def now(self) -> float:
        return time.time() + self.seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.slept

    def awake(self) -> float:
        return time.monotonic()


def engine_of(clock: Off, storage: object, transport: ScriptedTransport, backoff: float = 0.5) -> Engine:
    if isinstance(storage, PostgresStorage):
        pytest.skip("its clock is the database's: see tests/postgres/test_clocks.py")
    policy = Policy(backoff_base=backoff, backoff_throttled=backoff, request_timeout=5.0)
    return Engine(
        storage, {("default", "push"): transport}, EngineOptions(clock=clock, rng=random.Random(1), policy=policy)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "trouble",
    [
        Throttled(0.5, Scope.BINDING, named=False),
        Throttled(0.5, Scope.GROUP, named=False),
        Unavailable("unknown", after=0.5),
    ],
)
async def test_a_machine_that_boots_ahead_and_is_put_right_waits_no_longer(trouble: Outcome, restart: bool) -> None:
    """A gate of seconds that was closed by a clock 8 h ahead is closed for seconds, in hand, in storage, and after a
    restart."""
    well = False

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return ACCEPTED if well else trouble

    clock, storage = Off(8 * HOURS), fresh_storage()
    first = engine_of(clock, storage, ScriptedTransport(answer))
    if restart and not storage.shared:
        pytest.skip("memory: ends with its process")
    async with first as engine:
        await register(engine, "alice", "phone", "tablet")
        receipt = await engine.send(HI, "user:alice")
        async with asyncio.timeout(120):
            while not {"gate", "quota", "backoff"} & set((await receipt.status()).pending_by_reason):
                await asyncio.sleep(0.01)
        if not restart:
            clock.seconds, well = 0.0, True
            assert (await receipt.wait(60)).counts["accepted"] == 2
            return
    clock.seconds, well = 0.0, True
    async with engine_of(clock, storage, ScriptedTransport(answer)) as engine:
        assert (await engine.wait(receipt.id, 30)).counts["accepted"] == 2


@pytest.mark.parametrize(
    "trouble",
    [
        Throttled(0.2, Scope.BINDING, named=False),
        Throttled(0.2, Scope.GROUP, named=False),
        Unavailable("unknown", after=0.2),
    ],
)
async def test_what_was_decided_before_the_clock_was_put_right_and_is_stored_after_it_waits_no_longer(
    trouble: Outcome,
) -> None:
    """The clock is set between the answer and its commit: neither the delivery nor another worker waits the 8 hours."""
    clock, storage, asked = Off(8 * HOURS), fresh_storage(), 0

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        nonlocal asked
        asked += 1
        if not clock.seconds:
            return ACCEPTED
        asyncio.get_running_loop().call_soon(setattr, clock, "seconds", 0.0)
        return trouble

    async with engine_of(clock, storage, ScriptedTransport(answer), backoff=0.1) as engine:
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        async with asyncio.timeout(120):
            while (await receipt.status()).attempts < 1:
                await asyncio.sleep(0.01)
            await engine._upkeep.tell_gates()
        assert all(note.until < clock.now() + 5.0 for note in await storage.gates(clock.now()))
        assert (await receipt.wait(60)).counts["accepted"] == 1
    assert asked == 2


async def test_what_storage_refused_while_the_clock_was_put_right_waits_no_longer() -> None:
    clock, storage, asked = Off(8 * HOURS), fresh_storage(), 0

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        nonlocal asked
        asked += 1
        return ACCEPTED if asked > 1 else Unavailable("unknown", after=0.2)

    settle, refused = storage.settle, False

    async def away(settlements: Sequence[Settlement], now: float) -> list[Settled]:
        nonlocal refused
        if not refused:
            refused, clock.seconds = True, 0.0
            raise StorageUnavailable("away")
        return await settle(settlements, now)

    storage.settle = away  # type: ignore[method-assign]
    async with engine_of(clock, storage, ScriptedTransport(answer), backoff=0.1) as engine:
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        assert (await receipt.wait(60)).counts["accepted"] == 1


async def test_a_wish_stays_where_it_is_when_the_clock_is_put_right() -> None:
    clock, transport = Off(8 * HOURS), ScriptedTransport()
    async with engine_of(clock, fresh_storage(), transport) as engine:
        await register(engine, "alice", "phone")
        wish = await engine.send(HI, "user:alice", at=clock.now() + 60)
        clock.seconds = 0.0
        assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
        assert (await wish.status()).state == "scheduled"
        clock.seconds = 9 * HOURS
        assert (await wish.wait(60)).counts["accepted"] == 1


async def test_a_transport_is_told_of_a_suspend_and_of_a_clock_that_was_set() -> None:
    told: list[str] = []

    class Told(ScriptedTransport):
        def woke(self) -> None:
            told.append("woke")

        def mended(self) -> None:
            told.append("mended")
            raise RuntimeError("a plugin's own fault")

    clock, transport = Off(0.0), Told()
    async with engine_of(clock, fresh_storage(), transport) as engine:
        clock.slept += 7200.0
        clock.seconds += 7200.0
        async with asyncio.timeout(60):
            while told != ["woke"]:
                await asyncio.sleep(0.01)
        clock.seconds += 60.0
        async with asyncio.timeout(60):
            while told != ["woke", "mended"]:
                await asyncio.sleep(0.01)
        assert engine._settler.states[0].faults == 1
