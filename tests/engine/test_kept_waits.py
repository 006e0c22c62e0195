"""The wait of an endpoint that accuses its gateway alone is its own, and not of the notification that was tried."""

from __future__ import annotations

import asyncio

import pytest
from holding import HI
from rig import register, running

from fanout.core.delivery import Delivery
from fanout.engine import sender
from fanout.engine.receipt import Receipt
from fanout.plugin import ACCEPTED, Outcome, Scope, Throttled
from fanout.testing.scripted import ScriptedMessage

pytestmark = pytest.mark.anyio


class Busy:
    """The first send is answered when the test says so: the gateway is busy, as no other answer says. Each other send
    is accepted."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if self.begun.is_set():
            return ACCEPTED
        self.begun.set()
        await self.open.wait()
        return Throttled(600.0, Scope.GROUP, "busy")


@pytest.mark.parametrize("mended", [False, True], ids=["waits", "retried"])
async def test_a_wait_outlives_the_notification_that_was_cancelled(
    mended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_HEARD", 0.0)
    busy = Busy()
    async with running(busy) as (engine, transport):
        await register(engine, "alice", "phone")
        first = await engine.send(HI, "user:alice")
        await busy.begun.wait()
        cancelling = asyncio.create_task(first.cancel())
        while not await engine.storage.stopped([first.id]):
            await asyncio.sleep(0.001)
        busy.open.set()
        await cancelling
        if mended:
            await engine.resume_binding("push")

        second = await engine.send(HI, "user:alice")
        if mended:
            assert (await second.wait(60)).counts["accepted"] == 1
        else:
            await _until_it_waits(second)
            assert transport.calls == 1


async def _until_it_waits(receipt: Receipt) -> None:
    async with asyncio.timeout(60):
        while (status := await receipt.status()).pending_by_reason != {"quota": 1}:
            assert status.finished_at is None, "it was sent before the wait was over"
            await asyncio.sleep(0.001)
