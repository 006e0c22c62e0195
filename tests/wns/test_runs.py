"""Deliveries that are begun together: over the idle connections of a host, answered by index; the rest is for
`send`."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from fanout.core.records import EndpointRow
from fanout.core.run import Run
from fanout.plugin import ACCEPTED, Outcome, Rejected, Scope, Throttled, Unavailable
from fanout.testing.simulator import Faults, Reply, Request
from tests.wns.pushing import NOTE, delivery

pytestmark = pytest.mark.anyio


def made_id(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


class Started:
    """A run to some channels: what `start` left, and the outcomes by index."""

    def __init__(self, transport: Any, channels: list[str], **options: Any) -> None:
        group = transport.parse_address(channels[0]).group
        rows = [EndpointRow(n, channel, "", group, 0.0, 1, "active") for n, channel in enumerate(channels)]
        self.outcomes: dict[int, Outcome | None] = {}
        self.ended = asyncio.Event()
        self.run = Run(transport.prepare(NOTE), made_id, rows, self.taken, **options)
        self.left = list(transport.start(self.run))
        assert not self.outcomes
        self.run.give_up(self.left)
        self.run.release()

    def taken(self, run: Run, accepted: list[int], others: list[tuple[int, Outcome | None]]) -> None:
        self.outcomes |= dict.fromkeys(accepted, ACCEPTED) | dict(others)
        if len(self.outcomes) + len(self.left) == len(run):
            self.ended.set()

    async def all(self) -> dict[int, Outcome | None]:
        await asyncio.wait_for(self.ended.wait(), 30)
        return self.outcomes


async def warm(wns: Any, transport: Any, count: int) -> None:
    """So many idle connections to one host."""
    message = transport.prepare(NOTE)
    await transport.send(message, delivery(transport, wns.address(0)))  # one token for all
    sends = [transport.send(message, delivery(transport, wns.address(3 * n))) for n in range(count)]
    assert await asyncio.gather(*sends) == [ACCEPTED] * count


async def test_a_run_goes_over_idle_connections_with_its_own_ids(opened: Callable[..., Any]) -> None:
    requests: list[Request] = []
    async with opened(connections=4) as (wns, transport):
        before = Started(transport, [wns.address(0)])
        assert before.left == [0], "there is neither a token nor a connection"
        await warm(wns, transport, 4)
        wns.script = lambda request: requests.append(request)
        started = Started(transport, [wns.address(3 * n) for n in range(3)], attempt=2, ttl=77)
        assert len(started.left) < 3
        outcomes = await started.all()
        assert set(outcomes.values()) == {ACCEPTED}
        assert len(requests) == len(outcomes) == 3 - len(started.left)
        for request in requests:
            (number,) = [n for n in range(3) if wns.address(3 * n).endswith(request.path)]
            base, _, attempt = request.headers["ms-cv"].partition(".")
            assert uuid.UUID(bytes=base64.b64decode(base + "==")) == uuid.UUID(made_id(number))
            assert (attempt, request.headers["x-wns-ttl"]) == ("2", "77")
            assert request.headers["host"] == transport.parse_address(wns.address(0)).group
        assert wns.counters.violations == []
        nothing = Started(transport, [wns.address(0)], ttl=0)
        assert await nothing.all() == {0: ACCEPTED}
        assert requests[-1].headers["x-wns-cache-policy"] == "no-cache"


async def test_an_answer_to_a_run_means_the_same_as_to_a_send(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        await warm(wns, transport, 1)
        for reply, outcome in [
            (Reply(200, {"X-WNS-Status": "dropped"}), Rejected("dropped")),
            (Reply(200, {"X-WNS-Status": "channelthrottled"}), Throttled(None, Scope.ENDPOINT, "channelthrottled")),
            (Reply(405, {}), Rejected("status 405")),
        ]:
            wns.script = lambda request, reply=reply: reply
            assert await Started(transport, [wns.address(0)]).all() == {0: outcome}


async def test_a_token_that_a_run_found_refused_is_replaced_before_the_next_send(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        await warm(wns, transport, 1)
        seen: list[str] = []

        def script(request: Request) -> Reply | None:
            seen.append(request.headers["authorization"])
            return Reply(401, {}) if request.headers["authorization"] == seen[0] else None

        wns.script = script
        assert await Started(transport, [wns.address(0)]).all() == {0: None}, "for send"
        assert Started(transport, [wns.address(0)]).left == [0], "not with that token again"
        assert await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(0))) is ACCEPTED
        assert len(seen) == 2
        assert seen[1] != seen[0]
        assert await Started(transport, [wns.address(0)]).all() == {0: ACCEPTED}


async def test_a_channel_that_is_refused_or_of_another_host_leaves_its_run_to_send(opened: Callable[..., Any]) -> None:
    async with opened(connections=4) as (wns, transport):
        await warm(wns, transport, 2)
        for other in ("https://evil.example/?token=abcdefgh", wns.address(1), wns.address(0).replace("?", "?\r\nX: y")):
            before = wns.counters.requests
            assert Started(transport, [wns.address(0), other]).left == [0, 1]
            assert wns.counters.requests == before


async def test_a_run_whose_connection_dies_is_unknown(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        await warm(wns, transport, 1)
        wns.faults = Faults(kill_before=1.0)
        assert await Started(transport, [wns.address(0)]).all() == {0: Unavailable("unknown", Scope.ENDPOINT, "closed")}
