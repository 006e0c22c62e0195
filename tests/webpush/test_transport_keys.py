"""Which VAPID key a subscription was made with, and how tokens are renewed."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from fanout.plugin import (
    Accepted,
    Address,
    AddressInvalid,
    Context,
    Delivery,
    Gone,
    Misconfigured,
    Notification,
    Scope,
    Secret,
)
from fanout.testing.clock import VirtualClock
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.transport import WebPushTransport
from fanout_webpush.vapid import make_vapid_keys
from tests.webpush.sending import VENDORS

pytestmark = pytest.mark.anyio


# -- keys


async def test_the_kind_of_an_address_is_its_vapid_key(rig: Any) -> None:
    async with rig() as each:
        address = each.subscribe()
        assert address.kind == each.simulator.key.id
        raw = {**each.simulator.subscribe("me"), "applicationServerKey": each.simulator.key.public + "="}
        assert each.transport.parse_address(json.dumps(raw)).kind == each.simulator.key.id


async def test_a_subscription_that_names_an_unknown_key_is_refused(rig: Any) -> None:
    async with rig() as each:
        raw = {**each.simulator.subscribe("me"), "applicationServerKey": make_vapid_keys().application_server_key}
        with pytest.raises(AddressInvalid, match="unsubscribe and subscribe again"):
            each.transport.parse_address(raw)


async def test_after_a_change_of_key_old_subscriptions_need_no_request_to_be_known_as_lost(rig: Any) -> None:
    async with rig() as each:
        address = each.subscribe()
        old = Address(address.value, kind="OLDOLDOL", group=address.group, identity=address.identity)
        assert await each.send(old) == Gone("subscribed under another VAPID key", certain=False)
        assert each.simulator.counters.requests == 0


async def test_the_previous_key_reaches_its_subscriptions(rig: Any, transport_to: Any) -> None:
    new = make_vapid_keys()
    async with rig() as each:
        old_address = each.subscribe()
        pem = each.simulator.settings()["vapid_private_key"]
        changes = {"vapid_private_key": new.private_pem.reveal(), "vapid_previous_key": pem}
        async with transport_to(each.simulator, **changes) as transport:
            message = transport.prepare(Notification(title="x"))
            assert isinstance(await transport.send(message, Delivery.of(old_address)), Accepted)
            raw = each.simulator.subscribe("me", server_key=new.application_server_key)
            assert isinstance(await transport.send(message, Delivery.of(transport.parse_address(raw))), Accepted)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_another_senders_subscription_is_gone_only_where_the_service_says_that_it_is_that(
    rig: Any, vendor: str
) -> None:
    """Mozilla's and Edge's 401 may as well be our key, token or clock: the death of an endpoint it is not."""
    async with rig() as each:
        address = each.subscribe(vendor, server_key=make_vapid_keys().application_server_key)
        outcome = await each.send(address)
        if vendor in ("mozilla", "edge"):
            assert isinstance(outcome, Misconfigured)
            assert outcome.scope is Scope.GROUP
        else:
            assert isinstance(outcome, Gone)
            assert not outcome.certain


async def test_a_token_that_is_called_bad_is_renewed_once_when_it_is_an_hour_old() -> None:
    clock = VirtualClock(1_800_000_000.0 // 21600 * 21600)
    async with WebPushSimulator(clock=clock.now) as server:
        transport = _transport(server, clock)
        async with transport:
            address = transport.parse_address(server.subscribe("me", vendor="apple"))
            message = transport.prepare(Notification(title="x"))
            assert isinstance(await transport.send(message, Delivery.of(address)), Accepted)
            first = server.headers["authorization"]
            bad = {first}
            server.script = lambda request: (
                server.error("BadJwtToken", request) if request.headers["authorization"] in bad else None
            )
            refused = await transport.send(message, Delivery.of(address))
            assert refused == Misconfigured("BadJwtToken", Scope.GROUP)
            assert server.counters.requests == 2
            clock.advance(3601)
            assert isinstance(await transport.send(message, Delivery.of(address)), Accepted)
            assert server.counters.requests == 4
            assert server.headers["authorization"] != first
            server.script = lambda request: server.error("BadJwtToken", request)
            assert await transport.send(message, Delivery.of(address)) == refused
            assert server.counters.requests == 5


def _transport(server: WebPushSimulator, clock: VirtualClock) -> Any:
    values = server.settings() | {"ca_file": server.authority.ca_file}
    values["vapid_private_key"] = Secret(values["vapid_private_key"])
    context = Context(app="default", binding="webpush", clock=clock, rng=random.Random(1))
    return WebPushTransport(WebPushSettings(**values), context)


async def test_apple_sees_one_new_token_in_six_hours() -> None:
    clock = VirtualClock()
    async with WebPushSimulator(clock=clock.now) as server, _transport(server, clock) as transport:
        address = transport.parse_address(server.subscribe("me", vendor="apple"))
        message = transport.prepare(Notification(title="x"))
        for _ in range(48):
            assert isinstance(await transport.send(message, Delivery.of(address)), Accepted)
            clock.advance(1800)
        changed = server._tokens.changed
        assert 4 <= len(changed) <= 5
        assert all(later - earlier > 3600 for earlier, later in itertools.pairwise(changed))
