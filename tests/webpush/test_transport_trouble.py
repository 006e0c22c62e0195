"""Hosts in trouble, hosts by the thousand, and what is certain of a request that failed."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from fanout.plugin import (
    Accepted,
    Deferred,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.simulator import Faults, Stall
from tests.webpush.sending import VENDORS, endpoint

pytestmark = pytest.mark.anyio


# -- where requests may go


async def test_no_more_hosts_at_a_time_than_configured(rig: Any) -> None:
    async with rig(max_hosts=2) as each:
        addresses = [each.subscribe(vendor) for vendor in ("mozilla", "google", "apple")]
        each.simulator.script = lambda request: Stall()
        first = [asyncio.ensure_future(each.send(address)) for address in addresses[:2]]
        await each.simulator.requested(2)
        outcome = await each.send(addresses[2])
        assert outcome == Deferred("too many hosts at once (max_hosts)", 1.0)
        await each.simulator.disconnect()
        assert all(isinstance(done, Unavailable) for done in await asyncio.gather(*first))
        each.simulator.script = None
        assert isinstance(await each.send(addresses[2]), Accepted)  # one of the two that are idle has made room


async def test_many_hosts_take_turns_and_none_is_in_trouble(rig: Any) -> None:
    """Sixty hosts where four may be busy: each has its turn within the patience of a delivery, and none is closed while
    it is busy."""
    async with rig(max_hosts=4, allowed_hosts=("push.example",)) as each:
        hosts = each.transport._hosts
        busy: set[str] = set()

        async def use(name: str) -> bool:
            host = await hosts.admit(name)
            if host is None:
                return False
            busy.add(name)
            assert len(busy) <= 4
            await asyncio.sleep(0)
            assert hosts.get(name) is host, "a host is busy from its admission to its answer"
            busy.discard(name)
            host.active -= 1
            hosts.left()
            return True

        assert all(await asyncio.gather(*[use(f"h{n}.push.example") for n in range(60)]))
        assert not hosts._waiting


@pytest.mark.parametrize("vendor", ["google", "edge"])
async def test_after_a_suspend_nothing_is_sent_over_what_was_open_before(rig: Any, vendor: str) -> None:
    """Over HTTP/2, and over HTTP/1.1, which Edge speaks."""
    async with rig() as each:
        address = each.subscribe(vendor)
        assert isinstance(await each.send(address), Accepted)
        before = each.simulator.counters.connections
        assert isinstance(await each.send(address), Accepted)
        assert each.simulator.counters.connections == before
        each.transport.woke()
        assert isinstance(await each.send(address), Accepted)
        assert each.simulator.counters.connections == before + 1


# -- trouble


@pytest.mark.parametrize("vendor", ["google", "edge"])
async def test_a_gateway_that_is_not_there_is_known_not_to_have_been_reached(rig: Any, vendor: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with rig(gateway=f"https://127.0.0.1:{nobody.getsockname()[1]}", request_timeout=2.0) as each:
            outcome = await each.send(each.subscribe(vendor))
            assert outcome == Unavailable("no", Scope.GROUP, "connect")


@pytest.mark.parametrize("vendor", ["google", "edge"])
async def test_a_certificate_of_nobodys_authority_is_not_talked_to(rig: Any, vendor: str) -> None:
    async with rig(ca_file=None) as each:
        outcome = await each.send(each.subscribe(vendor))
        assert outcome == Unavailable("no", Scope.GROUP, "tls")
        assert each.simulator.counters.requests == 0


@pytest.mark.parametrize("vendor", ["google", "edge"])
@pytest.mark.parametrize(("fault", "sent"), [("kill_before", "unknown"), ("reset", "unknown"), ("stall", "unknown")])
async def test_doubt_is_told_as_doubt(rig: Any, vendor: str, fault: str, sent: str) -> None:
    async with rig(request_timeout=1.0) as each:
        each.simulator.faults = Faults(**{fault: 1.0})
        outcome = await each.send(each.subscribe(vendor))
        assert isinstance(outcome, Unavailable)
        assert outcome.sent == sent
        assert outcome.scope is Scope.ENDPOINT


async def test_a_refused_stream_is_told_as_not_sent(rig: Any) -> None:
    async with rig() as each:
        each.simulator.faults = Faults(refuse=1.0)
        outcome = await each.send(each.subscribe("google"))
        assert outcome == Unavailable("no", Scope.ENDPOINT, "refused")


async def test_many_throttled_endpoints_of_a_host_throttle_the_host(rig: Any) -> None:
    async with rig() as each:
        each.simulator.script = lambda request: each.simulator.error("429", request)
        outcomes = [await each.send(each.subscribe("google")) for _ in range(20)]
        assert outcomes[:19] == [Throttled(30.0, Scope.ENDPOINT, "status 429")] * 19
        assert isinstance(outcomes[19], Throttled)
        assert outcomes[19].scope is Scope.GROUP


async def test_apples_shutdown_changes_the_connection(rig: Any) -> None:
    async with rig() as each:
        address = each.subscribe("apple")
        each.simulator.script = lambda request: each.simulator.error("Shutdown", request)
        assert isinstance(await each.send(address), Unavailable)
        each.simulator.script = None
        assert isinstance(await each.send(address), Accepted)
        assert each.simulator.counters.connections == 2


async def test_many_at_once_over_two_protocols(rig: Any) -> None:
    async with rig() as each:
        addresses = [each.subscribe(VENDORS[n % 4]) for n in range(400)]
        outcomes = await asyncio.gather(*(each.send(address, title=str(n)) for n, address in enumerate(addresses)))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        for n, address in enumerate(addresses):
            (plaintext,) = each.simulator.received[endpoint(address)]
            assert json.loads(plaintext)["title"] == str(n)


async def test_cancelled_sends_leave_the_others_alone(rig: Any) -> None:
    async with rig() as each:
        tasks = [asyncio.ensure_future(each.send(each.subscribe(VENDORS[n % 4]))) for n in range(200)]
        await each.simulator.requested(5)
        for task in tasks[::3]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(done[n], Accepted) for n in range(200) if n % 3)
