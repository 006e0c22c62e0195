"""Trouble between us and Apple: every send resolves, and nothing is lost or told wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fanout.plugin import ACCEPTED, Accepted, Delivery, Misconfigured, Notification, Outcome, Scope, Unavailable
from fanout.testing.simulator import Disconnect, Faults, Reset, Stall, read_ledger
from fanout_apns.simulator import ApnsSimulator
from fanout_apns.transport import ApnsTransport

pytestmark = pytest.mark.anyio

HELLO = Notification(id="01890a5d-ac96-774b-bcce-b302099a8057", title="Hello")


async def send(transport: ApnsTransport, apple: ApnsSimulator, number: int = 1, **delivery: Any) -> Outcome:
    given = {"id": str(uuid4())} | delivery
    return await transport.send(
        transport.prepare(HELLO), Delivery.of(transport.parse_address(apple.address(number)), **given)
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Reset(7), Unavailable("no", reason="refused")),
        (Reset(2), Unavailable("unknown", reason="reset")),
        (Reset(11), Unavailable("unknown", reason="reset")),
        (Disconnect(), Unavailable("unknown", reason="closed")),
        (Stall(), Unavailable("unknown", reason="timeout")),
    ],
)
async def test_what_a_broken_answer_means(opened: Any, answer: Any, expected: Outcome) -> None:
    async with opened(request_timeout=1.5) as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
        apple.script = lambda request: answer
        assert await send(transport, apple) == expected
        apple.script = None
        assert await send(transport, apple) is ACCEPTED


async def test_a_gateway_that_is_not_there(transport_to: Any) -> None:
    async with ApnsSimulator() as apple:
        settings = apple.settings()
    async with (
        ApnsSimulator() as other,  # for its files only; the first one's port is closed
        transport_to(other, gateway=settings["gateway"]) as transport,
    ):
        assert await send(transport, other) == Unavailable("no", Scope.GROUP, "connect")
        diagnosis = await transport.check()
        assert "gave no answer (connect)" in diagnosis.problem
        assert "2197" in diagnosis.problem


async def test_a_gateway_that_nobody_vouches_for(transport_to: Any) -> None:
    async with (
        ApnsSimulator() as apple,
        ApnsSimulator() as other,
        transport_to(apple, ca_file=other.ca_file) as transport,
    ):
        assert await send(transport, apple) == Unavailable("no", Scope.GROUP, "tls")
        assert "ca_file" in (await transport.check()).problem


async def test_a_goaway_with_apple_s_reason(opened: Any) -> None:
    async with opened() as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
        apple.script = lambda request: Stall()
        pending = asyncio.ensure_future(send(transport, apple))
        await apple.requested(2)
        apple.go_away(short=1, debug=b'{"reason":"BadCertificate"}')
        assert await pending == Misconfigured("BadCertificate")


async def test_a_graceful_goaway_costs_nothing(opened: Any) -> None:
    async with opened() as (apple, transport):
        apple.faults = Faults(goaway_every=7)
        outcomes = [await send(transport, apple, number) for number in range(40)]
        lost = [outcome for outcome in outcomes if outcome is not ACCEPTED]
        assert all(isinstance(outcome, Unavailable) and outcome.sent == "no" for outcome in lost)
        assert apple.counters.accepted == len(outcomes) - len(lost)
        assert apple.counters.goaways >= 5
        assert not apple.counters.violations


async def test_streams_shrink_and_recover_without_loss(opened: Any) -> None:
    async with opened() as (apple, transport):
        apple.faults = Faults(shrink_every=25, shrink_to=3)
        outcomes = await asyncio.gather(*[send(transport, apple, number) for number in range(300)])
        assert set(outcomes) == {ACCEPTED}
        assert apple.counters.refused == 0
        assert not apple.counters.violations


@pytest.mark.parametrize("client", ["fanout", "aioapns"])
async def test_a_storm_of_everything(opened: Any, tmp_path: Path, client: str) -> None:
    """Every send resolves; what was called accepted is in the ledger, and what certainly was not sent is not."""
    ledger = tmp_path / "ledger"
    faults = Faults(
        seed=3,
        errors={"InternalServerError": 0.03, "TooManyRequests": 0.03, "Shutdown": 0.002},
        refuse=0.02,
        reset=0.02,
        reset_after=0.02,
        stall=0.005,
        stall_after=0.005,
        delay=0.05,
        delay_seconds=0.01,
        kill_before=0.003,
        kill_after=0.003,
        goaway_every=150,
        goaway_short=2,
        body_chunk=7,
    )
    async with opened(client=client, request_timeout=1.5, simulator={"ledger": ledger}) as (apple, transport):
        await send(transport, apple)
        apple.faults = faults
        slots = asyncio.Semaphore(50)

        async def one(number: int) -> tuple[str, Outcome]:
            delivery = str(uuid4())
            async with slots:
                return delivery, await send(transport, apple, number, id=delivery)

        count = 600 if client == "fanout" else 200
        results = await asyncio.gather(*[one(number) for number in range(count)])
        assert not apple.counters.violations or client == "aioapns"
    accepted = Counter(entry.delivery for entry in read_ledger(ledger))
    for delivery, outcome in results:
        if isinstance(outcome, Accepted):
            assert accepted[delivery] == 1
        elif isinstance(outcome, Unavailable) and outcome.sent == "unknown":
            assert accepted[delivery] <= 1
        elif client == "fanout" and faults.goaway_short and isinstance(outcome, Unavailable):
            # A GOAWAY that names too low a stream lies: what it excludes may have been handled. Nobody can know better.
            assert accepted[delivery] <= 1 if outcome.reason == "goaway" else accepted[delivery] == 0
        else:
            assert accepted[delivery] == 0
    kinds = Counter(type(outcome).__name__ for _, outcome in results)
    assert kinds["Accepted"] > len(results) / 3
    assert kinds["Unavailable"] > 5
