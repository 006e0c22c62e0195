"""A gateway that allows no request at present: its group waits, by name, and goes on when it allows some."""

from __future__ import annotations

import asyncio

import pytest
from rig import register, running

from fanout import Notification
from fanout.engine.observing import observe
from fanout.testing.scripted import ScriptedTransport

pytestmark = pytest.mark.anyio


async def test_a_group_without_capacity_waits_for_the_limiter() -> None:
    push = ScriptedTransport()
    push.capacities[""] = 0
    async with running(transports={("default", "push"): push}) as (engine, _):
        await register(engine, "alice", "phone", "desk")

        receipt = await engine.send(Notification(title="Hi"), "user:alice")
        while not (waiting := (await receipt.status()).pending_by_reason).get("limiter"):
            await asyncio.sleep(0.01)
        status = await receipt.status()

        assert waiting == {"limiter": 2}
        assert status.counts["accepted"] == 0
        assert push.sends == []
        (binding,) = observe(engine).bindings
        assert (binding.capacity, binding.limit) == (0, 0)
        assert binding.group_gates["open"] == 1  # no verdict on anybody

        push.capacities[""] = 1
        status = await receipt.wait(60)
        assert status.counts["accepted"] == 2
        assert status.attempts == 2
        assert sum(binding.group_gates[state] for state in binding.group_gates if state != "open") == 0


async def test_one_group_without_capacity_holds_no_other_back() -> None:
    push = ScriptedTransport()
    push.capacities["shut"] = 0
    async with running(transports={("default", "push"): push}) as (engine, _):
        await register(engine, "alice", "shut/phone", "open/phone")

        receipt = await engine.send(Notification(title="Hi"), "user:alice")
        while (await receipt.status()).counts["accepted"] < 1:
            await asyncio.sleep(0.01)
        assert [sent.address for sent in push.sends] == ["open/phone"]

        push.capacities["shut"] = 2
        assert (await receipt.wait(60)).counts["accepted"] == 2
