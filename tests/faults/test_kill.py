"""kill -9 and SIGSTOP against real worker processes, audited against the gateway's ledger. `make faults` runs the long form."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

import fanout
from benchmarks.kills import trial, worker
from fanout.cli.gateways import Gateway, toml
from fanout.core.ids import delivery_id
from fanout.testing.simulator.ledger import read_ledger

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]


async def test_kill_9_loses_nothing_and_lies_about_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = 50 if request.config.getoption("--faults") else 3
    seed = random.SystemRandom().getrandbits(32)

    audit = await trial(tmp_path, kills=kills, rng=random.Random(seed))

    assert audit.deliveries == kills * 50 * (50 + 5)
    assert (audit.lost, audit.false) == (0, 0), f"seed {seed}: {audit}"
    assert audit.states == {"accepted": audit.deliveries}
    assert audit.worst <= audit.bound, f"seed {seed}: {audit}"


async def test_a_stopped_worker_that_wakes_up_changes_nothing(tmp_path: Path) -> None:
    """Worker A is stopped with a chunk in hand; B takes the lease over and finishes; A wakes up and is refused."""
    ledger = tmp_path / "ledger"
    slow = '{"delay": 1.0, "delay_seconds": 0.4}'
    async with Gateway("apns", tmp_path / "gateway", "--ledger", str(ledger), "--faults", slow) as gateway:
        config = tmp_path / "fanout.toml"
        policy = {"lease": 0.5, "checkpoint": 0.02}
        config.write_text(toml(f"sqlite:{tmp_path}/fanout.db", {"apns": gateway.settings}, policy))
        async with fanout.open(config, role="submit") as engine:
            for device in range(200):
                await engine.endpoints.register(user="alice", binding="apns", address=f"{device + 1:064x}")
            receipt = await engine.send(fanout.Notification(title="Hi"), "user:alice")
            async with worker(config) as stopped:
                while not (await engine.storage.outstanding()).get("leased"):
                    await asyncio.sleep(0.01)
                stopped.send_signal(signal.SIGSTOP)
                async with worker(config):
                    status = await receipt.wait(60)
                    before = [row async for row in engine.deliveries(receipt.id)]
                    stopped.send_signal(signal.SIGCONT)
                    log = len(list(read_ledger(ledger)))
                    # A's answers are waiting in its socket: it reads them now, and tries to settle them.
                    follow = engine.events(after=[e.id async for e in engine.events()][-1])
                    assert [event async for event in follow] == []
                    stopped.send_signal(signal.SIGTERM)
                    await stopped.wait()
            after = [row async for row in engine.deliveries(receipt.id)]
    assert status.counts["accepted"] == 200
    assert before == after
    arrived = Counter(entry.delivery for entry in read_ledger(ledger))
    assert set(arrived) == {delivery_id(receipt.id, endpoint) for endpoint, _, _ in after}
    assert log >= 200
    assert stopped.returncode == 0
