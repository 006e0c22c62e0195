"""One provider token for all processes: signed by the first that needs it, presented by all, renewed once."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import fanout
from fanout.core.fleet import supersedes
from fanout.plugin import (
    ACCEPTED,
    Context,
    Delivery,
    Misconfigured,
    Notification,
    Outcome,
    SharedToken,
    StorageError,
    Unavailable,
)
from fanout.testing.clock import VirtualClock
from fanout_apns import auth
from fanout_apns.making import make
from fanout_apns.simulator import ApnsSimulator
from fanout_apns.transport import ApnsTransport

pytestmark = pytest.mark.anyio


class Shelf:
    """What storage does with tokens."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.tokens: dict[str, SharedToken] = {}
        self.offers = 0
        self.broken = False

    def divide(self, name: str, rate: float, part: Any) -> Any:
        raise AssertionError("APNs has no rate to divide")

    async def token(self, name: str, *, offer: SharedToken | None = None, spacing: float = 0.0) -> SharedToken | None:
        if self.broken:
            raise StorageError("The database is away.")
        await asyncio.sleep(0)
        now = self.clock.now()
        if offer is not None:
            self.offers += 1
            if supersedes(self.tokens.get(name), now, spacing):
                self.tokens[name] = offer
        return self.tokens.get(name)


class Processes:
    """As many transports as there were processes: none shares the other's token."""

    def __init__(
        self, simulator: ApnsSimulator, settings: Any, clock: VirtualClock, monkeypatch: Any, **more: Any
    ) -> None:
        self.shelf = Shelf(clock)
        self.seen: list[str] = []
        self.transports: list[ApnsTransport] = []
        self._make = lambda: make(
            settings(simulator, **more),
            Context(app="default", binding="apns", clock=clock, rng=random.Random(1), fleet=self.shelf),
        )
        self._monkeypatch = monkeypatch
        self._simulator = simulator
        simulator.script = self.see

    def see(self, request: Any) -> None:
        self.seen.append(request.headers["authorization"])

    async def start(self) -> ApnsTransport:
        self._monkeypatch.setattr(auth, "_shared", {})  # what a process of its own begins with
        transport = await self._make().__aenter__()
        self.transports.append(transport)
        return transport

    async def send(self, transport: ApnsTransport) -> Outcome:
        delivery = Delivery.of(transport.parse_address(self._simulator.address(1)), id=str(uuid4()))
        return await transport.send(transport.prepare(Notification(title="t")), delivery)

    async def tick(self) -> None:
        for transport in self.transports:
            transport._tick()
            if transport._renewing is not None:
                await transport._renewing

    @property
    def tokens(self) -> list[str]:
        return list(dict.fromkeys(self.seen))


@pytest.fixture(params=["fanout", "aioapns"])
async def processes(request: Any, settings_of: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = VirtualClock()
    async with ApnsSimulator(clock=clock.now) as simulator:
        made = Processes(simulator, settings_of, clock, monkeypatch, client=request.param)
        yield made, clock
        for transport in made.transports:
            await transport.__aexit__(None, None, None)


async def test_ten_processes_present_one_token(processes: Any) -> None:
    fleet, clock = processes
    for _ in range(10):
        transport = await fleet.start()
        assert await fleet.send(transport) is ACCEPTED
        clock.advance(200)  # beyond the ten minutes to which the time of issue is rounded
    assert len(fleet.tokens) == 1
    assert fleet.shelf.offers == 1
    assert len({transport._token for transport in fleet.transports}) == 10


async def test_they_renew_it_once(processes: Any) -> None:
    fleet, clock = processes
    transports = [await fleet.start() for _ in range(4)]
    for _ in range(125):
        for transport in transports:
            assert await fleet.send(transport) is ACCEPTED
        clock.advance(60)
        await fleet.tick()
    assert len(fleet.tokens) == 3  # of two hours
    (standing,) = fleet.shelf.tokens.values()
    assert standing.expires_at - clock.now() <= 3600


async def test_who_only_looks_on_signs_nothing(processes: Any) -> None:
    fleet, clock = processes
    transport = await fleet.start()
    for _ in range(3):
        clock.advance(3600)
        await fleet.tick()
    assert fleet.shelf.tokens == {}
    assert transport._token is not None
    assert transport._token.text == ""


async def test_many_first_sends_ask_once(processes: Any) -> None:
    fleet, _ = processes
    transport = await fleet.start()
    assert await asyncio.gather(*[fleet.send(transport) for _ in range(20)]) == [ACCEPTED] * 20
    assert fleet.shelf.offers == 1
    assert len(fleet.tokens) == 1


async def test_without_storage_each_has_its_own(processes: Any) -> None:
    fleet, _ = processes
    transport = await fleet.start()
    fleet.shelf.broken = True
    assert await fleet.send(transport) is ACCEPTED
    assert fleet.shelf.tokens == {}


async def test_a_token_that_expired_while_one_slept_is_replaced_by_the_others(processes: Any) -> None:
    fleet, clock = processes
    sleeper, other = await fleet.start(), await fleet.start()
    assert await fleet.send(sleeper) is ACCEPTED
    clock.advance(3700)
    assert await fleet.send(other) is ACCEPTED
    assert fleet.shelf.offers == 2
    assert await fleet.send(sleeper) == Unavailable("no", reason="ExpiredProviderToken")
    if sleeper._renewing is not None:
        await sleeper._renewing
    assert await fleet.send(sleeper) is ACCEPTED
    assert len(fleet.tokens) == 2
    assert fleet.shelf.offers == 2


async def test_a_token_from_the_future_is_adopted_by_nobody(processes: Any) -> None:
    """A worker signed it while its clock was 8 h ahead, and is gone: whoever finds it puts another in its place."""
    fleet, clock = processes
    clock.step(8 * 3600.0)
    ahead = await fleet.start()
    fleet._simulator.clock = lambda: clock.now() - 8 * 3600
    await fleet.send(ahead)
    clock.step(-8 * 3600.0)
    fleet._simulator.clock = clock.now
    (future,) = fleet.shelf.tokens.values()
    assert future.made_at > clock.now()

    others = [await fleet.start() for _ in range(3)]
    assert [await fleet.send(other) for other in others] == [ACCEPTED] * 3

    (standing,) = fleet.shelf.tokens.values()
    assert standing.made_at <= clock.now()
    assert len({other._token.text for other in others}) == 1, "one for all, again"


async def test_what_was_refused_is_not_presented_again_after_resume(processes: Any) -> None:
    """Dropped for everybody: the others find the next one, and it is made once."""
    fleet, clock = processes
    refused, others = await fleet.start(), [await fleet.start() for _ in range(2)]
    fleet._simulator.clock = lambda: clock.now() + 4000
    for transport in (refused, *others):
        assert isinstance(await fleet.send(transport), Misconfigured)
    before = len(fleet.seen)
    (old,) = fleet.tokens
    clock.step(4000.0)  # the machine's clock is put right
    fleet._simulator.clock = clock.now
    for transport in (refused, *others):
        transport.mended()
        assert await fleet.send(transport) is ACCEPTED

    assert old not in fleet.seen[before:]
    assert len(fleet.tokens) == 2


async def test_another_key_has_another_name(processes: Any, settings_of: Any) -> None:
    fleet, _ = processes
    first = (await fleet.start())._token
    async with ApnsSimulator() as another:
        key = settings_of(another).key
    assert first is not None
    second = auth.ProviderToken(first.team_id, first.key_id, key)
    assert first.name != second.name
    assert first.team_id not in first.name
    assert first.key_id not in first.name


async def test_three_workers_on_one_database_present_one_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    async with ApnsSimulator() as simulator:
        simulator.script = lambda request: seen.append(request.headers["authorization"])
        wanted: dict[str, Any] = {
            "storage": f"sqlite:{tmp_path}/fleet.db",
            "transports": {"apns": dict(simulator.settings())},
        }
        async with AsyncExitStack() as stack:
            for number in range(3):
                monkeypatch.setattr(auth, "_shared", {})
                engine = await stack.enter_async_context(fanout.open(**wanted, rng=random.Random(number)))
                transport = engine.transports["default", "apns"]
                assert isinstance(transport, ApnsTransport)
                assert await transport.check()
                # A day's first token of each would be of another ten minutes, and so be another.
                monkeypatch.setattr(auth, "SLOT", 600 - number)
            assert len(seen) == 3
            assert len(set(seen)) == 1
            assert seen[0].removeprefix("bearer ").encode() in bytes_of(tmp_path), "it stands there: it is worth little"


def bytes_of(folder: Path) -> bytes:
    """All that a reader of the database has."""
    return b"".join(file.read_bytes() for file in folder.iterdir())
