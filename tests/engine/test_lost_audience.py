"""A chunk whose row in the table `audience` is missing is given up; no engine stops for it, and the rest goes on."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from rig import fresh_storage, opened_again, register, running

from fanout.core.model import Notification
from fanout.core.records import Settlement
from fanout.core.refusal import UNSTORABLE
from fanout.plugin import ACCEPTED, Outcome, Scope, Throttled

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")


async def lose(storage: Any, id: str) -> None:
    """Delete the rows of this notification, by hand."""

    async def delete(db: Any) -> None:
        await db.run(
            "DELETE FROM audience WHERE chunk IN (SELECT c.id FROM chunk c JOIN notification n ON n.id = c.notification WHERE n.uuid = $1)",
            id,
        )

    await storage._driver.write(delete)


@pytest.mark.parametrize("crashed", [False, True], ids=["waiting", "left by a worker"])
async def test_what_was_to_go_to_nobody_knows_whom_ends_and_the_rest_goes_on(
    crashed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    storage: Any = fresh_storage()
    async with running(storage=storage, role="submit") as (engine, _):
        await register(engine, "alice", "phone", "tablet")
        receipts = [await engine.send(HI, "user:alice") for _ in range(5)]
        if crashed:
            await storage.lease(
                "w", "default", "push", 1, limit=99, now=0.0 + engine._clock.now(), until=engine._clock.now()
            )
        await lose(storage, receipts[1].id)
    caplog.set_level(logging.ERROR)
    async with running(storage=opened_again(storage)) as (engine, _), asyncio.timeout(120):
        statuses = [await engine.wait(receipt.id) for receipt in receipts]
    assert [status.counts["accepted"] for status in statuses] == [2, 0, 2, 2, 2]
    assert statuses[1].reasons["dead"] == {"audience lost": 2}
    assert [record.name for record in caplog.records] == ["fanout.storage"]


async def test_one_that_is_lost_while_it_is_in_hand_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    storage: Any = fresh_storage()
    lost = asyncio.Event()
    settle = storage.settle

    async def after(settlements: list[Settlement], now: float) -> Any:
        if any(settlement.retries for settlement in settlements) and not lost.is_set():
            await lose(storage, ids[0])
            lost.set()
        return await settle(settlements, now)

    def answer(message: Any, delivery: Any) -> Outcome:
        return Throttled(0.1, Scope.ENDPOINT, "slow") if delivery.address == "phone" and not lost.is_set() else ACCEPTED

    storage.settle = after
    ids: list[str] = []
    async with running(answer, storage=storage) as (engine, _), asyncio.timeout(120):
        await register(engine, "alice", "phone", "tablet")
        await register(engine, "bob", "other")
        ids.append((await engine.send(HI, "user:alice")).id)
        status = await engine.wait(ids[0])
        assert status.counts["accepted"] == 1
        assert status.reasons["dead"] == {UNSTORABLE: 1}
        assert (await (await engine.send(HI, "user:bob")).wait()).counts["accepted"] == 1
