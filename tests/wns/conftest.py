"""A simulated WNS and transports that talk to it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fanout.plugin import Clock, Context, Secret
from fanout_wns.settings import WnsSettings
from fanout_wns.simulator import WnsSimulator
from fanout_wns.transport import WnsTransport


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def settings_of(simulator: WnsSimulator, **changes: Any) -> WnsSettings:
    values = simulator.settings() | changes
    if isinstance(values["client_secret"], str):
        values["client_secret"] = Secret(values["client_secret"])
    values["ca_file"] = Path(values["ca_file"])
    return WnsSettings(**values)


def transport_to(
    simulator: WnsSimulator, *, clock: Clock | None = None, binding: str = "wns", **changes: Any
) -> WnsTransport:
    context = Context(app="default", binding=binding, clock=clock or RealClock(), rng=random.Random(1))
    return WnsTransport(settings_of(simulator, **changes), context)


Open = Callable[..., AbstractAsyncContextManager[tuple[WnsSimulator, WnsTransport]]]


@pytest.fixture(name="settings_of")
def settings_of_fixture() -> Callable[..., WnsSettings]:
    return settings_of


@pytest.fixture(name="transport_to")
def transport_to_fixture() -> Callable[..., WnsTransport]:
    return transport_to


@pytest.fixture
def opened() -> Open:
    """`async with opened(auth=…, clock=…, simulator={…}, …) as (simulator, transport)`; the rest are the transport's
    settings."""

    @asynccontextmanager
    async def open_both(
        *, auth: str = "entra", clock: Clock | None = None, simulator: dict[str, Any] | None = None, **changes: Any
    ) -> AsyncIterator[tuple[WnsSimulator, WnsTransport]]:
        given: dict[str, Any] = {"auth": auth, **(simulator or {})}
        if clock is not None:
            given["clock"] = clock.now
        async with WnsSimulator(**given) as wns, transport_to(wns, clock=clock, **changes) as transport:
            yield wns, transport

    return open_both
