"""A delivery that waits in memory goes to no address that its endpoint has left meanwhile."""

from __future__ import annotations

import array
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import register, running

from fanout.core.address import Address
from fanout.core.model import Target
from fanout.core.records import EndpointRow
from fanout.engine import Engine
from fanout.engine.rereading import changed
from fanout.plugin import ACCEPTED, Delivery, Moved, Notification, Outcome, Run
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

# What is stored, and how, makes no difference here.
pytestmark = pytest.mark.parametrize("backend", ["memory"], indirect=True)
HI = Notification(title="Hi")


def row(id: int, *, address: str = "a", group: str = "", generation: int = 1, state: str = "active") -> EndpointRow:
    return EndpointRow(id, address, "token", group, 0.0, generation, state)


ROWS = st.none() | st.builds(
    row, st.just(0), address=st.sampled_from("ab"), group=st.sampled_from("gh"), generation=st.integers(1, 2),
    state=st.sampled_from(["active", "gone"]),
)  # fmt: skip


@given(st.lists(st.tuples(ROWS, ROWS, st.sampled_from([0.0, 9.0])), max_size=6))
def test_what_differs_is_found_and_nothing_else(
    pairs: list[tuple[EndpointRow | None, EndpointRow | None, float]],
) -> None:
    before = [old and old._replace(id=id) for id, (old, _, _) in enumerate(pairs)]
    found = {id: now._replace(id=id, held_until=held) for id, (_, now, held) in enumerate(pairs) if now is not None}
    told = changed(before, array.array("q", range(len(pairs))), found)
    for position, old in enumerate(before):
        now = found.get(position)
        if old is None:
            assert position not in told, "it has been settled"
        elif now is None:
            assert told[position] is None
        else:
            assert (position in told) is (now._replace(held_until=0.0) != old)
            assert told.get(position, now) is now


class Slow(ScriptedTransport):
    """One delivery at a time in each group, answered when the test says so; `runs`: it starts deliveries in runs."""

    def __init__(self, *, runs: bool) -> None:
        super().__init__(self.answer_later, capacity=1)
        self.begun: list[str] = []
        self.held: dict[str, Callable[[Outcome], None]] = {}
        self.open = False
        if runs:
            self.start = self.start_run

    def answer_later(self, message: ScriptedMessage, delivery: Delivery) -> Outcome | Awaitable[Outcome]:
        self.begun.append(delivery.address)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.held[delivery.address] = future.set_result
        return ACCEPTED if self.open else future

    def start_run(self, run: Run) -> Sequence[int]:
        for index in range(len(run)):
            self.begun.append(address := run.delivery(index).address)
            self.held[address] = lambda outcome, index=index: run.answer(index, outcome)  # type: ignore[misc]
            if self.open:
                asyncio.get_running_loop().call_soon(run.answer, index, ACCEPTED)
        return ()

    def let_go(self) -> None:
        self.open = True
        for answer in [*self.held.values()]:
            answer(ACCEPTED)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def remove(engine: Engine, slow: Slow, id: int) -> None:
    await engine.endpoints.remove(id)


async def give_away(engine: Engine, slow: Slow, id: int) -> None:
    await register(engine, "bob", "shared")


async def move(engine: Engine, slow: Slow, id: int) -> None:
    slow.held.pop("shared")(Moved(Address("other")))


async def move_away(engine: Engine, slow: Slow, id: int) -> None:
    slow.held.pop("shared")(Moved(Address("far/other", group="far")))


@pytest.mark.anyio
@pytest.mark.parametrize("runs", [True, False], ids=["in runs", "one by one"])
@pytest.mark.parametrize(
    ("change", "goes_to", "cancelled"),
    [(remove, "", 1), (give_away, "", 1), (move, "other", 0), (move_away, "far/other", 0)],
)
async def test_nothing_goes_to_an_address_that_was_left_while_the_delivery_waited(
    change: Callable[[Engine, Slow, int], Awaitable[None]], goes_to: str, cancelled: int, runs: bool
) -> None:
    slow = Slow(runs=runs)
    async with running(transports={("default", "push"): slow}) as (engine, _):
        first, shared, _ = await register(engine, "alice", "first", "shared", "last")
        before = await engine.send(HI, Target.endpoints([first if goes_to == "" else shared]))
        await until(lambda: slow.begun)
        receipt = await engine.send(HI, "user:alice")
        (state,) = engine._states
        await until(lambda: state.queued(1) == 3)
        await change(engine, slow, shared)
        await until(lambda: any(lease.renewed for lease in state.leases.values()))
        del slow.begun[:]
        slow.let_go()
        status = await receipt.wait(60)
        await before.wait(60)

        assert "shared" not in slow.begun
        assert (goes_to in slow.begun) is (goes_to != "")
        assert (status.counts["cancelled"], status.counts["accepted"]) == (cancelled, 3 - cancelled)
