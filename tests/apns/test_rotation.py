"""The provider token in use: renewed, refused, held, shared."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from fanout.plugin import ACCEPTED, Delivery, Misconfigured, Notification, Outcome, Unavailable
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator import Reply
from fanout_apns.simulator import ApnsSimulator
from fanout_apns.transport import ApnsTransport

pytestmark = pytest.mark.anyio


class Apple:
    """Remembers which token each request came with, and on which connection."""

    def __init__(self, simulator: ApnsSimulator) -> None:
        self.simulator = simulator
        self.seen: list[tuple[int, str]] = []
        simulator.script = self.see

    def see(self, request: Any) -> None:
        self.seen.append((request.peer.number, request.headers["authorization"]))

    @property
    def tokens(self) -> list[str]:
        return list(dict.fromkeys(token for _, token in self.seen))


async def send(transport: ApnsTransport, apple: ApnsSimulator) -> Outcome:
    delivery = Delivery.of(transport.parse_address(apple.address(1)), id=str(uuid4()))
    return await transport.send(transport.prepare(Notification(title="t")), delivery)


async def test_one_token_for_two_hours_of_sending_is_three(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as (simulator, transport):
        apple = Apple(simulator)
        for _ in range(120):
            assert await send(transport, simulator) is ACCEPTED
            clock.advance(60)
            transport._tick()  # what the loop's timer does
        assert len(apple.tokens) == 3
        assert {number for number, _ in apple.seen} == {1}  # a new token needs no new connection


async def test_the_timer_looks_every_minute(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ticked = asyncio.Event()
    monkeypatch.setattr("fanout_apns.transport._TICK", 0.001)
    async with opened() as (_, transport):
        original = transport._adopt

        def adopt() -> None:
            original()
            ticked.set()

        monkeypatch.setattr(transport, "_adopt", adopt)
        await ticked.wait()


async def test_a_token_that_expired_while_we_slept_is_renewed_on_a_new_connection(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as (simulator, transport):
        apple = Apple(simulator)
        assert await send(transport, simulator) is ACCEPTED
        clock.advance(3700)  # and no timer ran: the machine was suspended
        outcomes = await asyncio.gather(*[send(transport, simulator) for _ in range(20)])
        assert set(outcomes) == {Unavailable("no", reason="ExpiredProviderToken")}
        assert await send(transport, simulator) is ACCEPTED
        assert len(apple.tokens) == 2
        assert apple.seen[0][0] != apple.seen[-1][0]
        assert transport._pool is not None
        assert transport._pool.stats.retired == 1  # though twenty answers asked for it


async def test_a_clock_that_is_behind_is_named(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as (simulator, transport):
        simulator.clock = lambda: clock.now() + 4000
        outcome = await send(transport, simulator)
        assert isinstance(outcome, Misconfigured)
        assert "clock" in outcome.reason
        diagnosis = await transport.check()
        assert not diagnosis.ok
        assert "clock" in diagnosis.problem


async def test_too_many_updates_goes_back_to_the_former_token(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as (simulator, transport):
        apple = Apple(simulator)
        assert await send(transport, simulator) is ACCEPTED
        clock.advance(47 * 60)
        transport._tick()
        simulator.script = lambda request: simulator.error("TooManyProviderTokenUpdates", request)
        assert await send(transport, simulator) == Unavailable("no", reason="TooManyProviderTokenUpdates")
        simulator.script = apple.see
        assert await send(transport, simulator) is ACCEPTED
        assert len(apple.tokens) == 1
        assert apple.seen[0][0] != apple.seen[1][0]  # the connection was left
        clock.advance(60)
        transport._tick()
        assert await send(transport, simulator) is ACCEPTED
        assert len(apple.tokens) == 1  # no new one for 20 minutes


async def test_two_bindings_of_one_key_present_one_token(transport_to: Any) -> None:
    async with ApnsSimulator() as simulator:
        apple = Apple(simulator)
        async with transport_to(simulator) as first, transport_to(simulator, binding="again", connections=3) as second:
            for transport in (first, second):
                await asyncio.gather(*[send(transport, simulator) for _ in range(5)])
        assert len(apple.tokens) == 1
        assert simulator.counters.connections >= 2


async def test_a_binding_learns_of_a_token_that_another_renewed(transport_to: Any) -> None:
    clock = VirtualClock()
    async with ApnsSimulator(clock=clock.now) as simulator:
        apple = Apple(simulator)
        async with (
            transport_to(simulator, clock=clock) as first,
            transport_to(simulator, clock=clock, binding="again") as second,
        ):
            assert await send(second, simulator) is ACCEPTED
            clock.advance(50 * 60)
            first._tick()
            assert await send(first, simulator) is ACCEPTED
            clock.advance(15 * 60)  # what the second one holds is expired by now
            assert await send(second, simulator) == Unavailable("no", reason="ExpiredProviderToken")
            assert await send(second, simulator) is ACCEPTED
        assert len(apple.tokens) == 2


async def test_with_aioapns_all_connections_share_the_token(opened: Any) -> None:
    async with opened(client="aioapns", connections=2, request_timeout=5.0) as (simulator, transport):
        apple = Apple(simulator)
        assert await send(transport, simulator) is ACCEPTED
        await simulator.disconnect()
        await send(transport, simulator)  # may still find the connection that was cut
        assert await send(transport, simulator) is ACCEPTED
        assert len({number for number, _ in apple.seen}) == 2
        assert len(apple.tokens) == 1


async def test_an_unproved_connection_after_401_stays_alone(opened: Any) -> None:
    async with opened() as (simulator, transport):
        simulator.script = lambda request: Reply(403, body=b'{"reason":"InvalidProviderToken"}')
        outcomes = await asyncio.gather(*[send(transport, simulator) for _ in range(5)])
        assert set(outcomes) == {Misconfigured("InvalidProviderToken")}
        assert simulator.counters.most_streams == 1
