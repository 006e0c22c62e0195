"""The clocks that an engine goes by: the machine's, or its database's."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace
from typing import Any

import pytest

from fanout.bootstrap import SystemClock
from fanout.engine import Engine, EngineOptions
from fanout.plugin import StorageContext, clock_of
from fanout.storage.carried import CarriedClock
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.testing.clock import VirtualClock


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no clock that counts a suspend")
def test_a_suspend_is_time_that_passes() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= SystemClock.monotonic() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert SystemClock().monotonic is SystemClock.monotonic, "called for each delivery: no method around it"


def test_a_storage_without_a_clock_leaves_the_machines() -> None:
    clock = VirtualClock()
    nothing: Any = SimpleNamespace()
    none: Any = SimpleNamespace(clock=None)
    assert clock_of(nothing, clock) is clock
    assert clock_of(none, clock) is clock
    engine = Engine(
        MemoryStorage("", StorageContext(clock=clock)), {}, EngineOptions(clock=clock, rng=random.Random(1))
    )
    assert engine._clock is clock


def test_a_carried_clock_is_the_machines_until_it_is_told() -> None:
    machine = VirtualClock(5000.0)
    clock = CarriedClock(machine)
    assert clock.now() == 5000.0
    assert clock.stale
    before = clock.monotonic()
    clock.told(9000.0, before)
    assert not clock.stale
    machine.advance(7.0)
    machine.step(-4000.0)
    assert clock.now() == 9007.0, "what is done to the machine's clock is none of it"
    machine.advance(30.0)
    assert clock.stale


def test_a_reading_that_took_long_is_taken_and_repeated() -> None:
    machine = VirtualClock(5000.0)
    clock = CarriedClock(machine)
    before = clock.monotonic()
    machine.advance(20.0)
    clock.told(9000.0, before)
    assert clock.stale
    assert abs(clock.now() - 9010.0) <= 10.0
    clock.told(9020.0, clock.monotonic())
    assert clock.now() == 9020.0
    assert not clock.stale
