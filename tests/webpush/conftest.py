"""Simulated push services and transports that talk to them."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from fanout.plugin import Address, Clock, Context, Delivery, Notification, Outcome, Secret
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.transport import WebPushTransport


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def make_transport(simulator: WebPushSimulator, *, clock: Clock | None = None, **changes: Any) -> WebPushTransport:
    values = simulator.settings() | changes
    for name in ("vapid_private_key", "vapid_previous_key"):
        if isinstance(values.get(name), str):
            values[name] = Secret(values[name], name)
    if isinstance(values.get("ca_file"), str):
        values["ca_file"] = simulator.authority.ca_file
    context = Context(app="default", binding="webpush", clock=clock or RealClock(), rng=random.Random(1))
    return WebPushTransport(WebPushSettings(**values), context)


class Rig:
    """A simulator and an open transport."""

    def __init__(self, simulator: WebPushSimulator, transport: WebPushTransport) -> None:
        self.simulator = simulator
        self.transport = transport

    def subscribe(self, vendor: str = "mozilla", **more: Any) -> Address:
        return self.transport.parse_address(self.simulator.subscribe("me", vendor=vendor, **more))

    async def send(self, address: Address, *, ttl: int = 3600, attempt: int = 1, **fields: Any) -> Outcome:
        fields = fields or {"title": "Hi"}
        message = self.transport.prepare(Notification(id="0197f0c0-0000-7000-8000-000000000000", **fields))
        return await self.transport.send(message, Delivery.of(address, ttl=ttl, attempt=attempt))


Rigged = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def transport_to() -> Callable[..., WebPushTransport]:
    return make_transport


@pytest.fixture
def rig() -> Rigged:
    @asynccontextmanager
    async def make(*, simulator: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[Rig]:
        async with WebPushSimulator(**{"keep": True, **(simulator or {})}) as server:
            async with make_transport(server, **{"request_timeout": 5.0, **changes}) as transport:
                yield Rig(server, transport)
            assert not server.counters.violations, server.counters.violations

    return make
