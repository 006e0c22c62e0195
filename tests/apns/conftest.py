"""A simulated Apple and transports that talk to it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fanout.plugin import Clock, Context, Secret
from fanout_apns.making import make
from fanout_apns.settings import ApnsSettings
from fanout_apns.simulator import ApnsSimulator
from fanout_apns.transport import ApnsTransport


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def settings_of(simulator: ApnsSimulator, **changes: Any) -> ApnsSettings:
    values = simulator.settings() | changes
    if "key" in values:
        values["key"] = Secret(values["key"])
    for name in ("ca_file", "cert_file", "cert_key_file"):
        if name in values:
            values[name] = Path(values[name])
    return ApnsSettings(**values)


def transport_to(
    simulator: ApnsSimulator, *, clock: Clock | None = None, binding: str = "apns", **changes: Any
) -> ApnsTransport:
    context = Context(app="default", binding=binding, clock=clock or RealClock(), rng=random.Random(1))
    return make(settings_of(simulator, **changes), context)


Open = Callable[..., AbstractAsyncContextManager[tuple[ApnsSimulator, ApnsTransport]]]


@pytest.fixture(name="settings_of")
def settings_of_fixture() -> Callable[..., ApnsSettings]:
    return settings_of


@pytest.fixture(name="transport_to")
def transport_to_fixture() -> Callable[..., ApnsTransport]:
    return transport_to


@pytest.fixture
def opened() -> Open:
    """`async with opened(client=…, auth=…, clock=…, …) as (simulator, transport)`; the rest are the transport's
    settings."""

    @asynccontextmanager
    async def open_both(
        *, auth: str = "token", clock: Clock | None = None, simulator: dict[str, Any] | None = None, **changes: Any
    ) -> AsyncIterator[tuple[ApnsSimulator, ApnsTransport]]:
        given: dict[str, Any] = {"auth": auth, **(simulator or {})}
        if clock is not None:
            given["clock"] = clock.now
        async with ApnsSimulator(**given) as apple, transport_to(apple, clock=clock, **changes) as transport:
            yield apple, transport

    return open_both
