"""A gateway that resets, stalls, drains, throttles and kills connections, for a while. `make soak` runs the long
form."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from pathlib import Path

import psutil
import pytest

import fanout
from fanout.cli.gateways import Gateway, toml
from fanout.core.ids import delivery_id
from fanout.testing.simulator.ledger import read_ledger

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

_FAULTS = (
    '{"goaway_every": 300, "reset": 0.005, "reset_after": 0.005, "refuse": 0.01, "shrink_every": 700, "shrink_to": 20, "kill_before": 0.0005, "kill_after": 0.0005, "delay": 0.05, "delay_seconds": 0.05,'
    ' "errors": {"ServiceUnavailable": 0.01, "InternalServerError": 0.01, "TooManyRequests": 0.01}}'
)
_POLICY = {"backoff_base": 0.02, "backoff_throttled": 0.05, "backoff_cap": 1.0, "request_timeout": 5.0, "attempts": 50}


async def test_nothing_is_lost_in_bad_weather(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every delivery ends in one state, what is reported as accepted is in the ledger, and nothing grows without
    end."""
    rounds, batch = (200, 20) if request.config.getoption("--soak") else (3, 10)
    ledger = tmp_path / "ledger"
    process = psutil.Process(os.getpid())
    sizes: list[float] = []
    ids: list[str] = []
    async with Gateway("apns", tmp_path / "gateway", "--ledger", str(ledger), "--faults", _FAULTS) as gateway:
        config = tmp_path / "fanout.toml"
        config.write_text(toml(f"sqlite:{tmp_path}/fanout.db", {"apns": gateway.settings}, _POLICY))
        rng = random.Random(4)
        before = len(asyncio.all_tasks())
        async with fanout.open(config) as engine:
            for device in range(200):
                await engine.endpoints.register(user=f"u{device % 20}", binding="apns", address=f"{device + 1:064x}")
            for _ in range(rounds):
                receipts = await engine.send_many(
                    [
                        (
                            fanout.Notification(title="x", lane=rng.choice(("urgent", "normal", "bulk"))),
                            rng.choice(["all", "user:u7"]),
                        )
                        for _ in range(batch)
                    ]
                )
                ids += [receipt.id for receipt in receipts]
                for receipt in receipts:
                    await receipt.wait(300)
                gc.collect()
                sizes.append(process.memory_info().rss / 2**20)
            states: Counter[str] = Counter()
            accepted: set[str] = set()
            for id in ids:
                async for endpoint, state, _ in engine.deliveries(id):
                    states[state] += 1
                    if state == "accepted":
                        accepted.add(delivery_id(id, endpoint))
        assert len(asyncio.all_tasks()) == before

    arrived = {entry.delivery for entry in read_ledger(ledger)}
    assert states["pending"] == 0
    assert accepted <= arrived, "reported as accepted, and the gateway never took it"
    assert states["accepted"] == states.total(), dict(states)
    if len(sizes) > 100:
        early, late = sorted(sizes[20:60])[20], sorted(sizes[-40:])[20]
        assert late < early + 30, f"memory grew from {early:.0f} to {late:.0f} MB"
