"""aioapns hangs, and sends twice; what stands around it does not."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from uuid import uuid4

import pytest

from fanout.plugin import (
    ACCEPTED,
    ConfigurationError,
    Deferred,
    Delivery,
    InvalidMessage,
    MessageTooLarge,
    Notification,
    Outcome,
    Scope,
    Unavailable,
)
from fanout.testing.simulator import Faults, Reply, Reset
from fanout_apns.simulator import ApnsSimulator
from fanout_apns.transport import ApnsTransport

pytestmark = pytest.mark.anyio

HELLO = Notification(id="01890a5d-ac96-774b-bcce-b302099a8057", title="Hello")


async def send(transport: ApnsTransport, apple: ApnsSimulator, **delivery: Any) -> Outcome:
    given = {"id": str(uuid4())} | delivery
    return await transport.send(
        transport.prepare(HELLO), Delivery.of(transport.parse_address(apple.address(1)), **given)
    )


@pytest.mark.parametrize("answer", [Reset(2), Reset(7), Reply(503)])
async def test_where_it_would_hang_the_deadline_ends_it(opened: Any, answer: Any) -> None:
    async with opened(client="aioapns", request_timeout=1.5) as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
        apple.script = lambda request: answer
        assert await send(transport, apple) == Unavailable("unknown", reason="timeout")
        apple.script = None
        assert await send(transport, apple) is ACCEPTED  # on a connection that can be trusted
        assert apple.counters.connections == 2


async def test_a_late_answer_breaks_nothing(opened: Any) -> None:
    async with opened(client="aioapns", request_timeout=1.5) as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
        apple.script = lambda request: Reply(200, {"apns-id": request.headers["apns-id"]}, after=1.7)
        assert await send(transport, apple) == Unavailable("unknown", reason="timeout")
        apple.script = None
        assert await send(transport, apple) is ACCEPTED
        assert apple.counters.requests == 3  # nothing was sent again behind our back


async def test_what_it_raises_over_an_answer_stays_inside(opened: Any) -> None:
    async with opened(client="aioapns", request_timeout=15.0) as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
        apple.faults = Faults(errors={"BadTopic": 1.0}, body_chunk=5)  # it takes each part for a whole
        assert await send(transport, apple) == Unavailable("unknown", reason="closed")
        apple.faults = Faults()
        assert await send(transport, apple) is ACCEPTED


async def test_a_lost_connection_sends_nothing_again(opened: Any) -> None:
    async with opened(client="aioapns", request_timeout=15.0) as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
        apple.faults = Faults(kill_after=1.0)
        assert await send(transport, apple) == Unavailable("unknown", reason="closed")
        assert apple.counters.requests == 2


async def test_the_same_delivery_twice_at_once(opened: Any) -> None:
    async with opened(client="aioapns", request_timeout=15.0) as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
        apple.script = lambda request: Reply(200, {"apns-id": request.headers["apns-id"]}, after=0.05)
        both = await asyncio.gather(*[send(transport, apple, id=str(HELLO.id)) for _ in range(2)])
        assert both == [ACCEPTED, Deferred("overload")]


async def test_no_gateway(transport_to: Any) -> None:
    async with ApnsSimulator() as gone:
        url = gone.url
    async with ApnsSimulator() as apple, transport_to(apple, client="aioapns", gateway=url) as transport:
        assert await send(transport, apple) == Unavailable("no", Scope.GROUP, "connect")


async def test_its_payload_is_measured_as_it_writes_it(transport_to: Any) -> None:
    async with ApnsSimulator() as apple:
        ours, theirs = transport_to(apple), transport_to(apple, client="aioapns")
        notification = Notification(title="t", data={f"k{n}": n for n in range(10)})
        message = theirs.prepare(notification)
        assert message.size == len(json.dumps(message.head, ensure_ascii=False).encode())
        assert message.size > ours.prepare(notification).size
        border = Notification(data={"x" * n: 1 for n in range(1, 85)})
        assert ours.prepare(border).size <= 4096
        with pytest.raises(MessageTooLarge, match="aioapns"):
            theirs.prepare(border)
        with pytest.raises(InvalidMessage, match="apns-channel-id"):
            theirs.prepare(Notification(title="t", transports={"apns": {"headers": {"apns-channel-id": "x"}}}))


async def test_where_it_is_not_installed(transport_to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "aioapns"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aioapns", None)
    async with ApnsSimulator() as apple:
        with pytest.raises(ConfigurationError, match="aioapns"):
            await transport_to(apple, client="aioapns").__aenter__()


async def test_a_certificate_without_a_topic(opened: Any) -> None:
    async with opened(client="aioapns", auth="certificate", topic="") as (apple, transport):
        assert await send(transport, apple) is ACCEPTED
