"""A broadcast through a proxy that is ended and begun again in the middle: nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import fanout
from fanout import Notification, Target
from fanout.testing.simulator import Faults
from fanout_apns.simulator import ApnsSimulator
from fanout_kit.ports import free_port
from tests.http.proxies import squid, tunnels

pytestmark = [pytest.mark.anyio, pytest.mark.external]


@pytest.mark.parametrize(
    ("real", "count"),
    [(False, 500), pytest.param(True, 10_000, marks=pytest.mark.long("500 go through a proxy of the tests"))],
)
async def test_a_proxy_that_is_restarted_loses_nothing(tmp_path: Path, real: bool, count: int) -> None:
    port = free_port()
    async with ApnsSimulator(faults=Faults(delay=1.0, delay_seconds=0.02)) as apple:
        apple.pushes = []
        async with fanout.open(
            storage=f"sqlite:{tmp_path / 'fanout.db'}",
            transports={"apns": {**apple.settings(), "streams": 20, "connections": 1}},
            policy={"backoff_base": 0.1, "backoff_cap": 0.5},
            proxy=f"http://127.0.0.1:{port}",
        ) as engine:
            devices = [{"user": "alice", "binding": "apns", "address": apple.address(n, "good")} for n in range(count)]
            await engine.endpoints.register_many([engine.endpoints.registration(**device) for device in devices])
            async with squid(tmp_path, port=port) if real else tunnels(port):
                receipt = await engine.send(Notification(title="t"), Target.all())
                pushes = apple.pushes
                while len(pushes) < count // 4:
                    await asyncio.sleep(0.01)
            assert len(pushes) < count
            async with squid(tmp_path, port=port) if real else tunnels(port):
                status = await receipt.wait()
        assert status.counts["accepted"] == count
        assert len({push.address for push in pushes}) == count
