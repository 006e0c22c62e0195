"""Endpoints that a client names to reach what it must not: refused at registration and at sending, with nobody
called."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from fanout.plugin import (
    Accepted,
    Address,
    AddressInvalid,
    Gone,
    Rejected,
    Unavailable,
)
from fanout.testing.simulator import Reply
from fanout_webpush.browsers import Browser

pytestmark = pytest.mark.anyio

HOSTILE = [
    "https://127.0.0.1/secret",
    "https://[::1]/secret",
    "https://localhost/secret",
    "https://fcm.googleapis.com.evil.example/secret",
    "https://evilpush.apple.com.example/secret",
    "https://evil-push.services.mozilla.com.nip.io/secret",
    "https://fcm.googleapis.com@127.0.0.1/secret",
    "https://fcm.googleapis.com:8443/secret",
    "http://fcm.googleapis.com/secret",
    "https://fcm.googleapis.com\\@127.0.0.1/secret",
    "https://fcm%2egoogleapis.com/secret",
    "https://169.254.169.254/latest/secret",
    "https://0x7f000001/secret",
    "https://fcm.googleapis.com/#secret",
    "file:///etc/secret",
]


@pytest.mark.parametrize("url", HOSTILE)
async def test_an_endpoint_that_is_no_push_service_is_refused_at_registration(rig: Any, url: str) -> None:
    async with rig() as each:
        raw = {**each.simulator.subscribe("me"), "endpoint": url}
        with pytest.raises(AddressInvalid) as raised:
            each.transport.parse_address(raw)
        assert "secret" not in str(raised.value)


async def test_and_at_sending_with_nobody_called(rig: Any) -> None:
    """As if the database had been written by another program."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        port = listener.getsockname()[1]
        async with rig(gateway="") as each:
            good = each.subscribe("google")
            for authority in (f"127.0.0.1:{port}", "127.0.0.1", f"localhost:{port}", "evil.example"):
                value = good.value.replace("fcm.googleapis.com", authority)
                hostile = Address(value, kind=good.kind, group=authority, identity="x")
                outcome = await each.send(hostile)
                assert isinstance(outcome, Rejected)
                assert outcome.reason.startswith("host refused")
            other_group = Address(value, kind=good.kind, group="fcm.googleapis.com", identity="x")
            assert await each.send(other_group) == Rejected("address is not of its group")
            damaged = Address(good.value.replace("/fcm/send/", "/fcm send/"), kind=good.kind, group=good.group)
            assert await each.send(damaged) == Rejected("address is not of its group")
            assert await each.send(Address("{}", group=good.group)) == Gone("unusable subscription")
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_an_allowed_public_name_that_leads_inside_is_not_connected_to(rig: Any, monkeypatch: Any) -> None:
    async def to_loopback(*args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]

    async with rig(gateway="") as each:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", to_loopback)
        for vendor in ("google", "edge"):
            outcome = await each.send(each.subscribe(vendor))
            assert isinstance(outcome, Unavailable)
            assert outcome.sent == "no"
        assert each.simulator.counters.connections == 0


async def test_directly_at_a_loopback_host_when_that_is_allowed(rig: Any) -> None:
    async with rig(gateway="", allowed_hosts=("127.0.0.1",), allow_private=True) as each:
        browser = Browser(f"{each.simulator.url}/wpush/v2/mine", each.simulator.key.public)
        address = each.transport.parse_address(browser.subscription())
        assert address.group == each.simulator.url.removeprefix("https://")
        bodies: list[bytes] = []

        def take(request: Any) -> Reply:
            bodies.append(request.body)
            return Reply(201)

        each.simulator.script = take
        assert isinstance(await each.send(address), Accepted)
        assert json.loads(browser.decrypt(bodies[0]))["title"] == "Hi"
