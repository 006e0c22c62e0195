"""A project's rate among processes: each keeps to its part, asks for more when something waits, and gives back what it
does not use."""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.fleet import SharedToken
from fanout.plugin import Accepted, Context, Delivery, Divided, Notification, Outcome, Scope, Throttled
from fanout.testing.clock import VirtualClock
from fanout_fcm.portion import portion_of
from fanout_fcm.shaper import Shaper
from fanout_fcm.simulator import FcmSimulator
from fanout_fcm.transport import FcmTransport, make

pytestmark = pytest.mark.anyio


class Others:
    """The fleet as one process sees it."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float, Divided]] = []
        self.asked = 0

    def divide(self, name: str, rate: float, part: Divided) -> Callable[[], None]:
        self.parts.append((name, rate, part))
        part.grant(0.0)
        return self.ask

    def ask(self) -> None:
        self.asked += 1

    async def token(self, name: str, *, offer: SharedToken | None = None, spacing: float = 0.0) -> SharedToken | None:
        return None


def test_a_process_whose_part_is_nought_looks_back_without_fault() -> None:
    """The database stood still: the part ran out, and a window of the ramp passed."""
    shaper = Shaper(1000, 60, 0.0)
    assert shaper.take(0.0, 10.0) == 0.0
    shaper.resize(0.0)
    assert shaper.take(1.0, 10.0) < 0
    assert shaper.take(9.0, 10.0) < 0
    shaper.resize(1000.0)
    assert shaper.take(9.5, 10.0) == 0.0


def test_a_part_of_the_rate_is_kept_to() -> None:
    shaper = Shaper(1000, 0, 0.0)
    shaper.resize(0.0)
    assert shaper.take(0.0, 10.0) < 0
    assert shaper.take(5.0, 10.0) < 0, "nothing is saved up without a part"
    shaper.resize(250.0)
    waits = [shaper.take(5.0, 10.0) for _ in range(500)]
    assert waits[:250] == [0.0] * 250
    assert waits[-1] == pytest.approx(1.0), "250 a second"
    shaper.resize(1000.0)
    assert shaper.rate == 1000
    shaper.resize(10.0)
    assert shaper.rate == 10


def test_what_is_asked_for() -> None:
    shaper = Shaper(1000, 0, 0.0)
    assert shaper.demand(1.0) == 10, "a hundredth, while nothing is sent"
    shaper.resize(10.0)
    for n in range(10):
        assert shaper.take(n / 10, 10.0) == 0
    assert shaper.demand(1.0) == 20, "twice of what is sent"
    for _ in range(30):
        shaper.take(1.0, 10.0)
    assert shaper.demand(1.0) == math.inf, "all there is, where something waits"
    assert shaper.demand(1.0) == 10, "and not because of what waited before"


def test_a_cold_one_asks_for_as_much_as_lets_twice_of_it_through() -> None:
    shaper = Shaper(600, 60, 0.0)
    for n in range(10):
        assert shaper.take(n / 5, 10.0) == 0
    wanted = shaper.demand(2.0)
    shaper.resize(wanted)
    assert shaper.rate >= 2 * 10 / 2 * 0.9


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    steps=st.lists(
        st.tuples(st.floats(0.0, 1.0), st.integers(0, 400), st.sampled_from([0.0, 1.0, 50.0, 500.0])), max_size=40
    )
)
def test_never_more_than_the_parts_that_were_granted(steps: list[tuple[float, int, float]]) -> None:
    shaper = Shaper(500, 0, 0.0)
    shaper.resize(0.0)
    now, part, allowed, due = 0.0, 0.0, 0.0, 0.0
    for seconds, count, grant in steps:
        now += seconds
        allowed += part * seconds
        sent = sum(shaper.take(now, 0.0) == 0 for _ in range(count))
        due += sent
        if grant > part:
            allowed += max(grant, 100.0)  # a burst: a second's worth, or what may always go at once
        part = grant
        shaper.resize(grant)
        assert due <= allowed + 1


def test_portions_are_shared_by_project_and_forgotten(folder: Any, settings_of: Any) -> None:
    fleet, clock = Others(), VirtualClock()
    simulator = FcmSimulator(folder=folder)
    made = settings_of(simulator)

    def context(binding: str) -> Context:
        return Context(app="default", binding=binding, clock=clock, rng=random.Random(1), fleet=fleet)

    first, second = portion_of(made, context("fcm")), portion_of(made, context("again"))
    assert first is second
    assert [(name.split()[:2], rate) for name, rate, _ in fleet.parts] == [(["fcm", made.project], 10_000.0)]
    del first, second
    fleet.parts.clear()
    gc.collect()
    assert portion_of(made, context("fcm")) is not None
    assert len(fleet.parts) == 1, "a new one joins anew"


async def send(google: FcmSimulator, transport: FcmTransport, number: int) -> Outcome:
    message = transport.prepare(Notification(title="t"))
    return await transport.send(message, Delivery.of(transport.parse_address(google.address(number))))


def start(google: FcmSimulator, settings_of: Any, fleet: Others, clock: VirtualClock, **more: Any) -> FcmTransport:
    context = Context(app="default", binding="fcm", clock=clock, rng=random.Random(1), fleet=fleet)
    return make(settings_of(google, **more), context)


async def test_a_process_without_a_part_waits_for_its_grant(folder: Any, settings_of: Any) -> None:
    fleet, clock = Others(), VirtualClock()
    async with (
        FcmSimulator(folder=folder, clock=clock.now) as google,
        start(google, settings_of, fleet, clock, rate_per_minute=6000) as transport,
    ):
        waiting = asyncio.create_task(send(google, transport, 1))
        await asyncio.sleep(0)
        assert google.counters.requests == 0
        ((_, _, part),) = fleet.parts
        assert part.demand() == math.inf
        part.grant(100.0)
        assert isinstance(await waiting, Accepted)


async def test_more_is_asked_for_at_once_and_once(folder: Any, settings_of: Any) -> None:
    fleet, clock = Others(), VirtualClock()
    async with (
        FcmSimulator(folder=folder, clock=clock.now) as google,
        start(google, settings_of, fleet, clock, rate_per_minute=6000) as transport,
    ):
        ((_, _, part),) = fleet.parts
        clock.advance(1.0)
        assert part.demand() == 1.0, "a hundredth"
        part.grant(1.0)
        for n in range(10):
            assert isinstance(await send(google, transport, n), Accepted)
        assert fleet.asked == 0
        waiting = [asyncio.create_task(send(google, transport, n)) for n in range(10, 20)]
        await asyncio.sleep(0)
        assert fleet.asked == 1, "however many wait"
        clock.advance(0.1)
        assert part.demand() == math.inf
        part.grant(100.0)
        await asyncio.sleep(0)
        clock.advance(3.0)
        outcomes = await asyncio.gather(*waiting)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)


async def test_what_would_wait_too_long_is_this_process_own_affair(folder: Any, settings_of: Any) -> None:
    fleet, clock = Others(), VirtualClock()
    async with (
        FcmSimulator(folder=folder, clock=clock.now) as google,
        start(google, settings_of, fleet, clock, rate_per_minute=60) as transport,
    ):
        ((_, _, part),) = fleet.parts
        part.demand()
        part.grant(0.05)
        for n in range(10):
            assert isinstance(await send(google, transport, n), Accepted)
        assert await send(google, transport, 10) == Throttled(
            pytest.approx(20.0), Scope.RATE, "rate_per_minute of this binding"
        ), "nothing more is to be had, and no other process need wait"
