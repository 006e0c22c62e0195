"""What `send` has prepared is kept for the lease of the same process, and is made anew where it is not at hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from rig import fresh_storage, register, running

from fanout.core.model import Notification
from fanout.core.records import Chunk, Stored
from fanout.core.window import MOST
from fanout.engine import dispatcher
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


async def test_as_many_are_kept_as_a_window_holds_and_none_that_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST < dispatcher._PREPARED
    asked: list[str] = []
    storage = fresh_storage()
    read = storage.notification

    async def notification(id: str) -> Stored | None:
        asked.append(id)
        return await read(id)

    monkeypatch.setattr(storage, "notification", notification)
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        for _ in range(3):
            for receipt in await engine.send_many([(HI, "user:alice")] * 100):
                await receipt.wait(60)
        (only,) = engine._dispatchers
        assert len(only._prepared) <= 100
        assert asked == []


async def test_more_than_is_kept_prepared_is_sent_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_PREPARED", 1024)
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        many = [(Notification(title=str(number)), "user:alice") for number in range(1500)]
        receipts = await engine.send_many(many)
        for receipt in receipts:
            await receipt.wait(60)

        assert sorted(sent.notification for sent in transport.sends) == sorted(receipt.id for receipt in receipts)


class Sure(ScriptedTransport):
    """A transport with `fits`, that counts what it prepares."""

    prepared = 0
    lies = False

    def fits(self, notification: Notification, size: int) -> bool:
        return self.lies or size < 1000

    def prepare(self, notification: Notification) -> ScriptedMessage:
        self.prepared += 1
        return super().prepare(notification)


async def test_what_fits_is_prepared_only_where_a_device_is_found() -> None:
    both = {("default", "push"): Sure(), ("default", "other"): Sure()}
    async with running(transports={**both}) as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await receipt.wait(60)
        assert [each.prepared for each in both.values()] == [1, 0]
        await (await engine.send(Notification(body="x" * 2000), "user:alice")).wait(60)
        assert [each.prepared for each in both.values()] == [2, 1], "what may not fit is looked at for every binding"

        found = await engine.preview(HI, "user:alice")
        assert found.sizes == {"push": len(transport_bytes(both["default", "push"], HI))}


def transport_bytes(transport: ScriptedTransport, notification: Notification) -> bytes:
    return transport.prepare(Notification(title=notification.title, id="0" * 36)).payload


async def test_what_a_transport_says_to_fit_and_refuses_all_the_same_ends_as_rejected() -> None:
    transport = Sure()
    transport.lies = True
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(Notification(data={"k": "x" * 5000}), "user:alice")
        status = await receipt.wait(60)
        assert status.counts["rejected"] == 1
        assert not transport.sends


async def test_a_fits_that_raises_is_logged_and_leaves_the_decision_to_prepare(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty(Sure):
        def fits(self, notification: Notification, size: int) -> bool:
            raise KeyError(size)

    transport = Faulty()
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", "phone")
        await (await engine.send(HI, "user:alice")).wait(60)
        assert len(transport.sends) == 1
    assert "default/push: KeyError escaped from fits (1)." in caplog.text


async def test_what_fits_and_is_cancelled_while_it_is_leased_is_not_sent() -> None:
    transport, storage = Sure(), fresh_storage()
    async with running(storage=storage, transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", "phone")
        lease = storage.lease

        async def leasing(*args: Any, **more: Any) -> list[Chunk]:
            chunks = await lease(*args, **more)
            for dispatcher in engine._put_notifier._dispatchers:
                dispatcher.stops.tell({chunk.notification: "cancelled" for chunk in chunks})
            return chunks

        storage.lease = leasing  # type: ignore[method-assign]
        status = await (await engine.send(HI, "user:alice")).wait(60)
        assert status.counts["cancelled"] == 1
        assert not transport.sends
