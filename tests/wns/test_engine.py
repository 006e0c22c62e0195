"""From `engine.send` to the settled state, over the real transport, found through its entry point."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

import fanout
from fanout.core.records import EndpointFilter
from fanout.errors import AddressInvalid, MessageTooLarge
from fanout.testing.simulator import Faults, read_ledger
from fanout_wns.simulator import WnsSimulator

pytestmark = pytest.mark.anyio


async def test_every_channel_ends_as_it_should(tmp_path: Path) -> None:
    expected = {"good": "accepted", "slow": "accepted", "expired": "gone", "unknown": "gone", "dropped": "rejected"}
    async with (
        WnsSimulator(folder=tmp_path / "ca", ledger=tmp_path / "ledger") as wns,
        fanout.open(storage="memory:", transports={"wns": wns.settings()}) as engine,
    ):
        states = {}
        for number in range(10):  # with 50 verdicts so many deaths would be a wave, which stops removals
            for behaviour, state in expected.items():
                address = wns.address(number, behaviour)
                endpoint = await engine.endpoints.register(user="alice", binding="wns", address=address)
                states[endpoint.id] = state
        receipt = await engine.send(fanout.Notification(title="Hi", body="there", data={"k": 1}), "user:alice")
        status = await receipt.wait(30)
        assert status.state == "done"
        found = {endpoint: state async for endpoint, state, _ in engine.deliveries(receipt.id)}
        assert found == states
        entries = list(read_ledger(tmp_path / "ledger"))
        assert len(entries) == len({entry.delivery for entry in entries}) == 20
        assert {entry.notification for entry in entries} == {receipt.id}
        left = await engine.storage.list_endpoints(EndpointFilter(user="alice"))
        assert {endpoint.id for endpoint in left} == {id for id, state in states.items() if state != "gone"}
        assert wns.counters.violations == []
        assert wns.fetched == 1


async def test_trouble_on_the_way_loses_nothing(tmp_path: Path) -> None:
    """A tenth of the requests each: cut before, cut after, answered 500; and every connection closed after 20
    requests."""
    faults = Faults(seed=3, kill_before=0.1, kill_after=0.1, errors={"InternalError": 0.1}, goaway_every=20)
    policy = {"backoff_base": 0.01, "backoff_cap": 0.05, "attempts": 50}
    async with (
        WnsSimulator(folder=tmp_path / "ca", ledger=tmp_path / "ledger", faults=faults) as wns,
        fanout.open(storage="memory:", transports={"wns": wns.settings()}, policy=policy) as engine,
    ):
        addresses = [wns.address(number) for number in range(150)]
        for number, address in enumerate(addresses):
            await engine.endpoints.register(user=f"u{number}", binding="wns", address=address)
        status = await (await engine.send(fanout.Notification(data={"k": 1}), "all")).wait(50)
        assert status.counts["accepted"] == 150
        reached = {entry.address for entry in read_ledger(tmp_path / "ledger")}
        assert len(reached) == 150


async def test_what_cannot_be_sent_is_refused_at_once(tmp_path: Path) -> None:
    async with (
        WnsSimulator(folder=tmp_path) as wns,
        fanout.open(storage="memory:", transports={"wns": wns.settings()}) as engine,
    ):
        await engine.endpoints.register(user="alice", binding="wns", address=wns.address(1))
        with pytest.raises(MessageTooLarge):
            await engine.send(fanout.Notification(title="t", body="x" * 6000), "user:alice")
        with pytest.raises(AddressInvalid):
            await engine.endpoints.register(user="alice", binding="wns", address="https://127.0.0.1/?token=x")
        diagnosis = await engine.check()
        assert all(found.ok for found in diagnosis.values())
        assert wns.counters.requests == 0


async def test_the_simulator_runs_as_a_process(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fanout.testing.simulator", "wns", "--ca-dir", str(tmp_path), "--lean"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = json.loads(await process.stdout.readline())
        assert said["name"] == "wns"
        async with fanout.open(storage="memory:", transports={"wns": said["settings"]}) as engine:
            await engine.endpoints.register(user="alice", binding="wns", address=WnsSimulator.address(1))
            status = await (await engine.send(fanout.Notification(title="t"), "user:alice")).wait(30)
            assert status.counts["accepted"] == 1
        process.stdin.write(b"counters\n")
        assert json.loads(await process.stdout.readline())["accepted"] == 1
    finally:
        process.stdin.close()
        await process.wait()
