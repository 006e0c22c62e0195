"""Leases with a collapse key: storage is asked about all of a batch at once whether something later was accepted."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable

import pytest
from rig import fresh_storage, register, running

from fanout.core.model import Notification
from fanout.engine.lease import Lease

pytestmark = pytest.mark.anyio
COUNT = 12


def _scores() -> list[tuple[Notification, str]]:
    return [(Notification(title=f"{n}", collapse_key=f"score-{n}"), f"user:u{n}") for n in range(COUNT)]


async def test_storage_is_asked_about_a_whole_batch_at_once() -> None:
    storage = fresh_storage()
    own, under_way, peak = storage.superseded, 0, 0

    async def superseded(id: str, ids: array[int]) -> set[int]:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        await asyncio.sleep(0)
        found = await own(id, ids)
        under_way -= 1
        return found

    storage.superseded = superseded  # type: ignore[method-assign]
    async with running(storage=storage) as (engine, transport):
        for n in range(COUNT):
            await register(engine, f"u{n}", f"phone-{n}")
        for receipt in await engine.send_many(_scores()):
            assert (await receipt.wait(60)).counts["accepted"] == 1
    assert peak >= (COUNT if storage.in_order else 4)  # and as many more where the watch looks beside it


async def test_a_later_one_that_comes_while_a_lease_is_on_its_way_into_hand_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Storage has said that nothing is later, and the word is still on its way, when something later comes."""
    storage = fresh_storage()
    outdate = Lease.outdate
    own, asked, again = storage.superseded, asyncio.Event(), asyncio.Event()

    async def superseded(id: str, ids: array[int]) -> set[int]:
        found = await own(id, ids)
        if not asked.is_set():
            asked.set()
            await again.wait()
        return found

    def outdated(lease: Lease, positions: Iterable[int]) -> None:
        outdate(lease, positions)
        again.set()

    monkeypatch.setattr(Lease, "outdate", outdated)
    storage.superseded = superseded  # type: ignore[method-assign]
    async with running(storage=storage) as (engine, transport):
        await register(engine, "alice", "phone", tags=["news"])
        receipt = await engine.send(Notification(title="1:0", collapse_key="score"), "user:alice")
        await asked.wait()
        later = await engine.send(Notification(title="1:1", collapse_key="score"), "topic:news")
        async with asyncio.timeout(60):
            first = await receipt.wait(60)
            await later.wait(60)
        assert first.counts["superseded"] == 1
        assert receipt.id not in {sent.notification for sent in transport.sends}
