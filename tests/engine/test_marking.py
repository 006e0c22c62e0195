"""Deliveries that have one attempt are marked before any of them is sent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rig import fresh_storage, register, running

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.core.states import DOUBT
from fanout.plugin import ACCEPTED, Outcome, Settled, Settlement
from fanout.testing.scripted import ScriptedMessage

pytestmark = pytest.mark.anyio
COUNT = 12


@pytest.mark.parametrize("lost", [0, 5])
async def test_those_of_a_batch_are_marked_in_one_commit_and_before_any_is_sent(lost: int) -> None:
    """Of a lease that is lost meanwhile nothing is sent here, and the others are."""
    storage = fresh_storage()
    own, marked = storage.settle, list[int]()

    async def settle(settlements: Sequence[Settlement], now: float) -> list[Settled]:
        marks = [each for each in settlements if any(state == DOUBT for state, _ in each.results)]
        if not marks:
            return await own(settlements, now)
        marked.append(len(marks))
        first, others = list(settlements[:lost]), list(settlements[lost:])
        if len(marked) > 1:
            return await own(settlements, now)
        return [Settled(True) for _ in first] + await own(others, now)

    def script(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        assert marked
        return ACCEPTED

    storage.settle = settle  # type: ignore[method-assign]
    async with running(script, storage=storage) as (engine, transport):
        for n in range(COUNT):
            await register(engine, f"u{n}", f"phone-{n}")
        once = [(Notification(title="Hi", repeat="at_most_once"), f"user:u{n}") for n in range(COUNT)]
        receipts = await engine.send_many(once)
        for receipt in receipts[lost:]:
            assert (await receipt.wait(60)).counts["accepted"] == 1
        assert marked[0] == COUNT
        assert {sent.notification for sent in transport.sends} == {receipt.id for receipt in receipts[lost:]}
