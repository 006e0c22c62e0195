"""What `send` has prepared is kept for the lease of the same process, and is made anew where it is not at hand."""

from __future__ import annotations

import time

import pytest
from rig import register, running

from fanout.core.model import Notification
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")


async def test_what_was_prepared_for_send_is_not_prepared_again_for_the_lease() -> None:
    class Counting(ScriptedTransport):
        prepared = 0

        def prepare(self, notification: Notification) -> ScriptedMessage:
            self.prepared += 1
            return super().prepare(notification)

    transport = Counting()
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await receipt.wait(60)
        assert transport.prepared == 1
        assert transport.sends[0].notification == receipt.id

        later = await engine.send(HI, "user:alice", at=time.time() + 0.05)
        await later.wait(60)
        assert transport.prepared == 3, "what is for later is prepared when its time has come"


async def test_more_than_is_kept_prepared_is_sent_all_the_same() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        many = [(Notification(title=str(number)), "user:alice") for number in range(1500)]
        receipts = await engine.send_many(many)
        for receipt in receipts:
            await receipt.wait(60)

        assert sorted(sent.notification for sent in transport.sends) == sorted(receipt.id for receipt in receipts)
