"""Every built-in transport carries a fresh delivery over a connection that is new or has just answered."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fanout.bootstrap import SystemClock
from fanout.config import BindingTable
from fanout.config.binding import binding_settings
from fanout.plugin import Accepted, Context, Delivery, Notification
from fanout.registry import Registry
from fanout.testing.simulator import Simulator
from tests.config.test_egress import KINDS

pytestmark = pytest.mark.anyio


class Later(SystemClock):
    """The machine's clock, so many seconds ahead."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.mark.parametrize("name", KINDS)
async def test_a_fresh_delivery_has_a_connection_of_its_own_or_one_that_has_just_answered(name: str) -> None:
    kind: type[Simulator] = KINDS[name]
    clock, registry = Later(), Registry()
    async with kind() as gateway:
        settings = registry.transport(name).settings
        values: dict[str, Any] = dict(gateway.settings())
        made = registry.make_transport(
            name, _settings(settings, values), Context(app="default", binding=name, clock=clock, rng=random.Random(1))
        )
        async with made as transport:
            message = transport.prepare(Notification(title="t"))
            address = transport.parse_address(gateway.address(0, "good"))

            async def sent(fresh: bool) -> None:
                assert isinstance(await transport.send(message, Delivery.of(address, fresh=fresh)), Accepted)

            for _ in range(2):
                await sent(False)
            before = gateway.counters.connections
            await sent(True)
            assert gateway.counters.connections == before  # it has just answered, and more than once
            clock.ahead += 1.5
            await sent(False)
            assert gateway.counters.connections == before
            clock.ahead += 1.5
            await sent(True)
            assert gateway.counters.connections == before + 1


def _settings(cls: type, values: dict[str, Any]) -> Any:
    return binding_settings(BindingTable("default", "x", "x", values), cls, Path(), {})
