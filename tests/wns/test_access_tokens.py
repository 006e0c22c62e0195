"""Access tokens against the simulator: one fetch for all, renewal, and a token endpoint in trouble."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fanout.plugin import (
    Accepted,
    Deferred,
    Misconfigured,
    Scope,
    Unavailable,
)
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator import Faults, Reply, Stall
from tests.wns.pushing import NOTE, delivery

pytestmark = pytest.mark.anyio


# -- tokens


async def test_many_first_sends_fetch_one_token(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        message = transport.prepare(NOTE)
        sends = [transport.send(message, delivery(transport, wns.address(n))) for n in range(100)]
        assert all(isinstance(outcome, Accepted) for outcome in await asyncio.gather(*sends))
        assert wns.fetched == 1


async def test_a_token_that_wns_forgot_is_renewed_once_and_the_push_sent_again(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        message = transport.prepare(NOTE)
        wns.pushes = []
        assert isinstance(await transport.send(message, delivery(transport, wns.address(0))), Accepted)
        wns.revoke()
        sends = [transport.send(message, delivery(transport, wns.address(n))) for n in range(50)]
        assert all(isinstance(outcome, Accepted) for outcome in await asyncio.gather(*sends))
        assert wns.fetched == 2
        assert len(wns.pushes) == 51


async def test_a_second_401_parks_the_binding(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        wns.script = lambda request: wns.error("Unauthorized", request)
        outcome = await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(0)))
        assert outcome == Misconfigured("status 401", Scope.BINDING)
        assert wns.counters.requests == 2  # sent again once, and no more
        assert wns.fetched == 2


async def test_a_wrong_secret_parks_the_binding(opened: Callable[..., Any]) -> None:
    async with opened(client_secret="not-the-secret-it-should-be") as (wns, transport):
        outcome = await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(0)))
        assert isinstance(outcome, Misconfigured)
        assert outcome.scope is Scope.BINDING
        assert "AADSTS7000215" in outcome.reason
        assert "not-the-secret" not in outcome.reason
        assert wns.counters.requests == 0


async def test_a_token_endpoint_that_is_down_parks_the_binding_and_nothing_is_sent(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        wns.token_answer = Reply(503, {"Retry-After": "20"})
        message = transport.prepare(NOTE)
        outcome = await transport.send(message, delivery(transport, wns.address(0)))
        assert isinstance(outcome, Unavailable)
        assert (outcome.sent, outcome.scope) == ("no", Scope.BINDING)
        assert not outcome.named, "no endpoint has a part in what the token endpoint says"
        assert outcome.after is not None
        assert 15 < outcome.after <= 20
        for _ in range(10):
            assert isinstance(await transport.send(message, delivery(transport, wns.address(0))), Unavailable)
        assert wns.token_requests == 1


async def test_the_old_token_serves_while_the_endpoint_is_down(opened: Callable[..., Any]) -> None:
    clock = VirtualClock()
    async with opened(clock=clock, simulator={"token_lifetime": 3600}) as (wns, transport):
        message = transport.prepare(NOTE)
        assert isinstance(await transport.send(message, delivery(transport, wns.address(0))), Accepted)
        wns.token_answer = Reply(500)
        clock.advance(3400)
        for _ in range(5):
            assert isinstance(await transport.send(message, delivery(transport, wns.address(0))), Accepted)
        clock.advance(300)
        outcome = await transport.send(message, delivery(transport, wns.address(0)))
        assert isinstance(outcome, Unavailable)
        assert outcome.sent == "no"
        wns.token_answer = None
        clock.advance(120)
        assert isinstance(await transport.send(message, delivery(transport, wns.address(0))), Accepted)


async def test_a_token_is_renewed_before_it_ends(opened: Callable[..., Any]) -> None:
    clock = VirtualClock()
    async with opened(clock=clock, simulator={"token_lifetime": 3600}) as (wns, transport):
        message = transport.prepare(NOTE)
        for _ in range(4 * 24):
            assert isinstance(await transport.send(message, delivery(transport, wns.address(0))), Accepted)
            await arrived(wns, transport)
            clock.advance(900)
        assert 24 <= wns.fetched <= 33
        assert wns.counters.rejected == {}  # never a 401


async def arrived(wns: Any, transport: Any) -> None:
    """Wait for a renewal in the background, if there is one."""
    task = transport._tokens._task
    if task is not None:
        await asyncio.wait((task,))


async def test_a_token_endpoint_that_hangs_is_bounded(opened: Callable[..., Any]) -> None:
    async with opened(request_timeout=0.3) as (wns, transport):
        wns.token_answer = Stall()
        outcome = await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(0)))
        assert outcome == Deferred("no token within the deadline")


async def test_no_secret_in_any_text(opened: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with opened() as (wns, transport):
            message = transport.prepare(NOTE)
            shown = [repr(transport), repr(message)]
            channels = [delivery(transport, wns.address(0, behaviour)) for behaviour in wns.behaviours]
            shown += [repr(await transport.send(message, one)) for one in channels]
            token = transport._tokens.current()
            assert token is not None
            for faults in (Faults(kill_after=1.0), Faults(kill_before=1.0)):
                wns.faults = faults
                shown.append(repr(await transport.send(message, delivery(transport, wns.address(0)))))
            shown += [repr(token), repr(transport._tokens), repr(transport._client), repr(transport._settings)]
            for text in (*shown, caplog.text):
                for secret in (token.text, wns.secret, wns.address(0), "AwYAAAC"):
                    assert secret not in text
