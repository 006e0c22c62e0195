"""Two workers on one database, one project: what both send stays within the project's rate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout.engine.observing import observe
from fanout_fcm.simulator import FcmSimulator

pytestmark = pytest.mark.anyio

RATE = 1000
"""Messages a second."""
_EACH = 32
"""Notifications of 200 deliveries: more than one worker takes into its hands."""


async def test_two_workers_keep_to_one_rate(folder: Path, tmp_path: Path) -> None:
    arrived: list[float] = []

    def see(request: Any) -> None:
        if b"/messages:send" in request.path.encode():
            arrived.append(time.monotonic())

    async with FcmSimulator(folder=folder) as google:
        google.script = see
        fcm = google.settings() | {"rate_per_minute": RATE * 60, "ramp": 0.0}
        wanted: dict[str, Any] = {
            "storage": f"sqlite:{tmp_path}/fleet.db",
            "transports": {"fcm": fcm},
            "policy": {"heartbeat": 2.0},
        }
        async with fanout.open(**wanted, role="submit") as submitter:
            for number in range(200):
                await submitter.endpoints.register(user="alice", binding="fcm", address=google.address(number))
            messages = [(fanout.Notification(title=str(number)), "user:alice") for number in range(_EACH)]
            receipts = await submitter.send_many(messages)
            async with fanout.open(**wanted, role="work") as first, fanout.open(**wanted, role="work") as second:
                for receipt in receipts:
                    assert (await receipt.wait(60)).counts["accepted"] == 200
                sent = [observe(engine).bindings[0].counters.attempts for engine in (first, second)]
        assert min(sent) >= 500, "both have sent"
        # By any moment no more than the rate has gone, and what either may send at once.
        for count, at in enumerate(arrived):
            assert count <= 2 * RATE + RATE * (at - arrived[0]) * 1.05
        assert len(arrived) >= 200 * _EACH
