"""When results are settled: at once where no answer is to come, else once a checkpoint. No test here waits for a checkpoint of an hour."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import register, running

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.core.policy import Policy
from fanout.engine.binding_state import BindingState
from fanout.engine.settler import Settler
from fanout.plugin import ACCEPTED, Outcome
from fanout.testing.scripted import ScriptedMessage

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")
RARE = Policy(checkpoint=3600.0, lease=9000.0, request_timeout=4000.0)


async def test_sends_one_after_the_other_are_each_settled_at_once() -> None:
    async with running(policy=RARE) as (engine, _):
        await register(engine, "alice", "phone")
        for _ in range(5):
            receipt = await engine.send(HI, "user:alice")
            assert (await receipt.wait(timeout=60)).counts["accepted"] == 1


async def test_the_last_answer_of_several_settles_all_of_them() -> None:
    free = asyncio.Event()

    async def script(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if delivery.address == "tablet":
            await free.wait()
        return ACCEPTED

    async with running(script, policy=RARE) as (engine, transport):
        await register(engine, "alice", "phone")
        await register(engine, "bob", "tablet")
        first = await engine.send(HI, "user:alice")  # the checkpoint begins
        await first.wait(timeout=60)
        slow = await engine.send(HI, "user:bob")
        quick = await engine.send(HI, "user:alice")
        while transport.calls < 3:
            await asyncio.sleep(0.001)
        assert (await quick.status()).counts["accepted"] == 0  # an answer is to come, so the settlement waits for it
        free.set()
        for receipt in (slow, quick):
            assert (await receipt.wait(timeout=60)).counts["accepted"] == 1


async def test_what_waits_for_another_worker_asks_storage_once_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel that another worker has yet to confirm is said again at a steady pace: settlements of nothing do not hurry it."""
    calls = 0
    async with running(policy=Policy(checkpoint=0.5, lease=5.0)) as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await receipt.wait(timeout=60)

        async def held(*_: object, **__: object) -> int:
            nonlocal calls
            calls += 1
            return int(calls < 5)

        monkeypatch.setattr(engine.storage, "cancel", held)
        settled = 0
        tick = BindingState.tick

        def counted(state: BindingState, now: float) -> None:
            nonlocal settled
            settled += 1
            tick(state, now)

        monkeypatch.setattr(BindingState, "tick", counted)
        await engine.cancel(receipt.id)
        assert calls == 5
        assert settled <= calls


class InHand:
    """A lease of one delivery, that counts how often it is looked at."""

    looks = 0

    def __init__(self, number: int, left: int) -> None:
        self.chunk, self.dirty = SimpleNamespace(id=number), not left
        self._left = left

    @property
    def left(self) -> int:
        InHand.looks += 1
        return self._left

    def end(self) -> None:
        self._left, self.dirty = 0, True


@given(ends=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_a_settlement_is_complete_when_no_delivery_in_hand_is_without_an_answer(ends: list[tuple[int, bool]]) -> None:
    leases = {number: InHand(number, number % 2) for number in range(6)}
    settler: Any = SimpleNamespace(states=[SimpleNamespace(leases=leases)], _open=None)
    for number, lost in ends:
        open_ = [each for each in leases.values() if each._left]
        assert Settler._complete(settler) is (not open_ and any(each.dirty for each in leases.values()))
        if number in leases and lost:
            del leases[number]
        elif number in leases:
            leases[number].end()


def test_an_answer_does_not_look_at_every_lease_in_hand() -> None:
    leases = {number: InHand(number, number // 999) for number in range(1000)}
    settler: Any = SimpleNamespace(states=[SimpleNamespace(leases=leases)], _open=None)
    InHand.looks = 0
    for _ in range(100):
        assert not Settler._complete(settler)
    assert InHand.looks < 1200
