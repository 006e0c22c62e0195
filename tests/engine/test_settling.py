"""When results are settled: at once where no answer is to come, else once a checkpoint. No test here waits for a
checkpoint of an hour."""

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
from fanout.core.states import DeliveryState, Waiting
from fanout.engine.binding_state import BindingState
from fanout.engine.lease import Hand, Lease
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
    """A cancel that another worker has yet to confirm is said again at a steady pace: settlements of nothing do not
    hurry it."""
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

    def __init__(self, number: int, left: int, hand: Hand) -> None:
        self.chunk, self._dirty = SimpleNamespace(id=number), not left
        self._left, self._hand = left, hand
        hand.left += left

    @property
    def dirty(self) -> bool:
        InHand.looks += 1
        return self._dirty

    def end(self) -> None:
        self._hand.left -= self._left
        self._left, self._dirty = 0, True


@given(ends=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_a_settlement_is_complete_when_no_delivery_in_hand_is_without_an_answer(ends: list[tuple[int, bool]]) -> None:
    hand = Hand()
    leases = {number: InHand(number, number % 2, hand) for number in range(6)}
    settler: Any = SimpleNamespace(states=[SimpleNamespace(leases=leases, hand=hand)])
    for number, settled in ends:
        open_ = [each for each in leases.values() if each._left]
        assert Settler._complete(settler) is (not open_ and any(each._dirty for each in leases.values()))
        if number in leases:
            leases[number].end()
            if settled:
                del leases[number]


def test_an_answer_does_not_look_at_every_lease_in_hand() -> None:
    """Answers to single sends come one after the other, the oldest first: the leases that have ended wait for their
    settlement."""
    hand = Hand()
    leases = {number: InHand(number, 1, hand) for number in range(1000)}
    settler: Any = SimpleNamespace(states=[SimpleNamespace(leases=leases, hand=hand)])
    InHand.looks = 0
    for lease in leases.values():
        assert not Settler._complete(settler)
        lease.end()
    assert Settler._complete(settler)
    assert InHand.looks < 10


@given(granted=st.floats(0, 1e6), alive=st.floats(0, 1e6))
def test_a_lease_ends_no_later_than_the_workers_heartbeat(granted: float, alive: float) -> None:
    prepared: Any = SimpleNamespace(notification=SimpleNamespace(repeat="prefer_delivery"))
    lease = Lease(SimpleNamespace(id=1, attempt=1), prepared, [None], granted, Hand())  # type: ignore[arg-type]
    lease.cap_deadline(alive)
    assert lease.until == min(granted, alive)
    lease.cap_deadline(1e7)
    assert lease.until == granted, "a heartbeat in time gives the rest of the lease back"


@given(
    ends=st.lists(
        st.sampled_from(["accept", "finish", "retry", "hold", "keep_open", "stall", "unstall", "give_back", "lose"]),
        max_size=12,
    )
)
def test_the_sum_of_what_is_in_hand_is_that_of_its_leases_but_lost_ones_however_a_delivery_leaves(
    ends: list[str],
) -> None:
    hand = Hand()
    prepared: Any = SimpleNamespace(notification=SimpleNamespace(repeat="prefer_delivery"))
    leases = [Lease(SimpleNamespace(id=id, attempt=1), prepared, [None] * 20, 60.0, hand) for id in range(2)]  # type: ignore[arg-type]
    for lease in leases:
        lease.claim(20)
    more: dict[str, tuple[Any, ...]] = {
        "accept": ([1, 2],),
        "finish": (1, DeliveryState.EXPIRED, "ttl"),
        "retry": (1, 5.0, 2, Waiting.BACKOFF, "busy"),
        "hold": (1, 5.0),
        "keep_open": (1, 5.0, Waiting.BREAKER),
        "stall": (1,),
        "unstall": (),
        "give_back": (1,),
        "lose": (),
    }
    for number, end in enumerate(ends):
        lease = leases[number % 2]
        again = getattr(lease, end)(*more[end], **({"attempted": True} if end == "finish" else {}))
        lease.claim(len(again or ()))
        assert hand.left == sum(each.left for each in leases if not each.lost)
