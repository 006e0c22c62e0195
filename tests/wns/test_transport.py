"""The transport against the simulator: headers, channels, the guard, deadlines and trouble."""

from __future__ import annotations

import asyncio
import base64
import logging
import runpy
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fanout.plugin import (
    ACCEPTED,
    Accepted,
    AddressInvalid,
    ConfigurationError,
    Delivery,
    Gone,
    Misconfigured,
    Notification,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.simulator import Faults, Reply, Request
from tests.wns.pushing import NOTE, delivery

pytestmark = pytest.mark.anyio
CORPUS = runpy.run_path(str(Path(__file__).parents[1] / "guard" / "corpus.py"))


class Seen:
    """The requests that reached the simulator; each is answered as usual."""

    def __init__(self, wns: Any) -> None:
        self.requests: list[Request] = []
        wns.script = self

    def __call__(self, request: Request) -> None:
        self.requests.append(request)

    @property
    def last(self) -> dict[str, str]:
        return self.requests[-1].headers


@pytest.mark.parametrize("auth", ["entra", "live"])
async def test_a_push_of_each_kind_arrives(opened: Callable[..., Any], auth: str) -> None:
    async with opened(auth=auth) as (wns, transport):
        wns.pushes = []
        kinds = {
            "wns/toast": NOTE,
            "wns/tile": Notification(title="t", id=NOTE.id, transports={"wns": {"type": "tile"}}),
            "wns/badge": Notification(badge=4, id=NOTE.id),
            "wns/raw": Notification(data={"k": "v"}, id=NOTE.id),
        }
        seen = Seen(wns)
        for number, (kind, note) in enumerate(kinds.items()):
            one = delivery(transport, wns.address(number))
            outcome = await transport.send(transport.prepare(note), one)
            assert outcome is ACCEPTED
            assert seen.last["x-wns-type"] == kind
            push = wns.pushes[-1]
            assert (push.delivery, push.notification) == (one.id, NOTE.id)
            assert push.address == transport.parse_address(wns.address(number)).digest
        assert wns.counters.violations == []
        assert wns.fetched == 1
        assert wns.counters.accepted == len(kinds)


async def test_the_headers_of_an_attempt(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        seen = Seen(wns)
        one = delivery(transport, wns.address(1), attempt=3, ttl=77)
        await transport.send(transport.prepare(Notification(data={"k": "v"}, lane="urgent", collapse_key="c")), one)
        assert set(seen.last) == {
            "host",
            "authorization",
            "content-type",
            "content-length",
            "ms-cv",
            "x-wns-type",
            "x-wns-ttl",
            "x-wns-priority",
            "x-wns-cache-policy",
        }
        assert seen.last["host"] == "wns2-am3p.notify.windows.com"
        assert seen.last["x-wns-ttl"] == "77"
        assert seen.last["x-wns-priority"] == "1"
        assert seen.last["x-wns-cache-policy"] == "cache"
        base, _, attempt = seen.last["ms-cv"].partition(".")
        assert uuid.UUID(bytes=base64.b64decode(base + "==")) == uuid.UUID(one.id)
        assert attempt == "3"
        assert seen.requests[0].path == wns.address(1).partition(".com")[2]

        zero = delivery(transport, wns.address(1), ttl=0)
        assert isinstance(await transport.send(transport.prepare(NOTE), zero), Accepted)
        assert (seen.last["x-wns-ttl"], seen.last["x-wns-cache-policy"]) == ("0", "no-cache")
        assert wns.counters.violations == []


async def test_status_is_asked_for_when_configured(opened: Callable[..., Any]) -> None:
    async with opened(request_for_status=True) as (wns, transport):
        seen = Seen(wns)
        assert isinstance(await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(1))), Accepted)
        assert seen.last["x-wns-requestforstatus"] == "true"
        both = {"X-WNS-Status": "received", "X-WNS-NotificationStatus": "dropped"}
        wns.script = lambda request: Reply(200, both)
        outcome = await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(1)))
        assert outcome == Rejected("dropped")


async def test_channels_that_behave_differently(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        message = transport.prepare(NOTE)

        async def send(behaviour: str) -> Any:
            return await transport.send(message, delivery(transport, wns.address(7, behaviour)))

        assert isinstance(await send("good"), Accepted)
        assert isinstance(await send("slow"), Accepted)
        assert isinstance(await send("expired"), Gone)
        assert isinstance(await send("unknown"), Gone)
        assert await send("other") == Misconfigured(
            "status 403: The cloud service is not authorized for this channel", Scope.BINDING
        )
        assert await send("dropped") == Rejected("dropped")
        assert await send("throttled") == Throttled(None, Scope.ENDPOINT, "channelthrottled")
        assert isinstance(await send("throttled"), Accepted)
        assert await send("busy") == Throttled(1.0, Scope.ENDPOINT, "status 406")
        assert isinstance(await send("busy"), Accepted)
        assert wns.counters.connections == 2  # one for tokens, one for pushes: both are kept


# -- addresses


def test_a_channel_and_its_group(transport_to: Callable[..., Any], tmp_path: Path) -> None:
    transport = bare(transport_to, tmp_path)
    raw = "https://WNS2-by3p.notify.windows.com/?token=AwYA%2bAB%2fC%3d"
    address = transport.parse_address(raw)
    assert address.value == "https://wns2-by3p.notify.windows.com/?token=AwYA%2bAB%2fC%3d"
    assert address.group == "wns2-by3p.notify.windows.com"
    assert transport.parse_address({"uri": raw}) == transport.parse_address(f" {raw}\n") == address
    assert "AwYA" not in f"{address!r} {address} {transport!r}"


async def test_hostile_channels_are_refused_at_registration_and_at_sending(opened: Callable[..., Any]) -> None:
    hostile = [*CORPUS["REGISTERED"], *CORPUS["FOREIGN"]]
    assert len(hostile) >= 150
    async with opened() as (wns, transport):
        message = transport.prepare(NOTE)
        for template in hostile:
            url = template.replace("{p}", str(wns._port))
            # A space around a channel is forgiven at registration, as it comes with copying.
            if url.strip() == url or "127.0.0.1" in url:
                with pytest.raises(AddressInvalid) as caught:
                    transport.parse_address(url)
                assert len(url) < 10 or url not in str(caught.value)
            # As it would come from the database, were it registered under another configuration.
            outcome = await transport.send(message, Delivery("0" * 32, 1, url, "", "", 1, 60, 0.0))
            assert isinstance(outcome, Rejected), url
            assert outcome.reason.startswith("address refused")
            assert "127.0.0.1" not in outcome.reason
        # Refused before anything is done: not even a token was fetched.
        assert wns.counters.connections == 0
        assert wns.token_requests == 0


async def test_a_channel_whose_name_leads_inside_is_not_sent_the_token(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An allow-listed name that resolves to loopback: the resolver refuses, and the token stays here."""

    async def getaddrinfo(loop: Any, host: Any, port: Any, **options: Any) -> Any:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    asked: list[str] = []
    async with opened(gateway="") as (wns, transport):
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        outcome = await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(1)))
        assert outcome == Unavailable("no", Scope.GROUP, "dns")
        assert asked == ["wns2-am3p.notify.windows.com"]
        assert wns.counters.requests == 0


async def test_a_configured_test_host(opened: Callable[..., Any]) -> None:
    """Without a gateway, the channel itself may lie on an allowed private host."""
    async with opened(gateway="", allowed_hosts=("localhost",), allow_private=True) as (wns, transport):
        channel = f"https://localhost:{wns._port}/?token=good-00000001"
        assert transport.parse_address(channel).group == f"localhost:{wns._port}"
        assert isinstance(await transport.send(transport.prepare(NOTE), delivery(transport, channel)), Accepted)
        for other in (f"https://127.0.0.1:{wns._port}/?token=good-00000001", wns.address(1)):
            with pytest.raises(AddressInvalid):
                transport.parse_address(other)


async def test_private_hosts_are_said_loudly(
    transport_to: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        bare(transport_to, tmp_path, allowed_hosts=("localhost",), allow_private=True)
    assert "allow_private" in caplog.text


def bare(transport_to: Callable[..., Any], folder: Path, **changes: Any) -> Any:
    from fanout_wns.simulator import WnsSimulator

    return transport_to(WnsSimulator(folder=folder), **changes)


# -- trouble


@pytest.mark.parametrize(
    ("faults", "sent", "accepted"),
    [
        (Faults(kill_before=1.0), "unknown", 0),
        (Faults(kill_after=1.0), "unknown", 1),
        (Faults(reset=1.0), "unknown", 0),
        (Faults(stall=1.0), "unknown", 0),
        (Faults(stall_after=1.0), "unknown", 1),
        (Faults(errors={"InternalError": 1.0}), "unknown", 0),
    ],
)
async def test_faults(opened: Callable[..., Any], faults: Faults, sent: str, accepted: int) -> None:
    async with opened(request_timeout=1.5) as (wns, transport):
        one = delivery(transport, wns.address(0))
        while not isinstance(await transport.send(transport.prepare(NOTE), one), Accepted):
            pass  # until there is a token and a connection, however slow this machine is
        before = wns.counters.accepted
        wns.faults = faults
        outcome = await transport.send(transport.prepare(NOTE), one)
        assert isinstance(outcome, Unavailable)
        assert outcome.sent == sent
        assert wns.counters.accepted == before + accepted
        wns.faults = Faults()
        assert isinstance(await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(0))), Accepted)


async def test_a_host_that_is_gone_is_not_sent(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        message = transport.prepare(NOTE)
        assert isinstance(await transport.send(message, delivery(transport, wns.address(0))), Accepted)
        await wns.__aexit__(None, None, None)
        outcome = await transport.send(message, delivery(transport, wns.address(0)))
        if outcome == Unavailable(
            "unknown", Scope.ENDPOINT, "closed"
        ):  # sent before the old connection's end was noticed
            outcome = await transport.send(message, delivery(transport, wns.address(0)))
        assert outcome == Unavailable("no", Scope.GROUP, "connect")


async def test_connections_that_the_server_closes_are_replaced(opened: Callable[..., Any]) -> None:
    async with opened(connections=4, simulator={"faults": Faults(goaway_every=3)}) as (wns, transport):
        message = transport.prepare(NOTE)
        for _ in range(10):
            sends = [transport.send(message, delivery(transport, wns.address(n))) for n in range(4)]
            assert all(isinstance(outcome, Accepted) for outcome in await asyncio.gather(*sends))
        assert wns.counters.accepted == 40
        assert wns.counters.connections >= 10


async def test_a_405_is_logged_once(opened: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (wns, transport):
        wns.script = lambda request: wns.error("MethodNotAllowed", request)
        for _ in range(3):
            outcome = await transport.send(transport.prepare(NOTE), delivery(transport, wns.address(0)))
            assert outcome == Rejected("status 405")
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


async def test_capacity_is_the_connections(opened: Callable[..., Any]) -> None:
    async with opened(connections=5) as (_, transport):
        assert transport.capacity("wns2-by3p.notify.windows.com") == 5


async def test_it_must_be_open(transport_to: Any, tmp_path: Path) -> None:
    transport = bare(transport_to, tmp_path)
    with pytest.raises(RuntimeError, match="async with"):
        await transport.send(transport.prepare(NOTE), delivery(transport, "https://a.notify.windows.com/?token=x"))
    with pytest.raises(RuntimeError, match="async with"):
        await transport.check()


async def test_a_ca_file_that_is_none_is_named(transport_to: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(ConfigurationError, match="ca_file"):
        await bare(transport_to, tmp_path, ca_file=str(wrong)).__aenter__()


# -- check


@pytest.mark.parametrize("auth", ["entra", "live"])
async def test_check_proves_the_credential(opened: Callable[..., Any], auth: str) -> None:
    async with opened(auth=auth) as (wns, transport):
        diagnosis = await transport.check()
        assert diagnosis.ok
        assert wns.counters.requests == 0  # nothing was pushed


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"client_secret": "wrong"}, "client_secret is wrong"),
        ({"client_id": "99999999-9999-4999-8999-999999999999"}, "is not in tenant_id"),
        ({"auth": "live", "client_secret": "wrong"}, "Package SID"),
    ],
)
async def test_check_says_what_to_change(opened: Callable[..., Any], changes: dict[str, str], problem: str) -> None:
    async with opened(**{"auth": "entra"} | changes) as (wns, transport):
        diagnosis = await transport.check()
        assert not diagnosis.ok
        assert problem in diagnosis.problem
        assert wns.secret not in f"{diagnosis!r}"


async def test_check_of_a_network_in_trouble(opened: Callable[..., Any]) -> None:
    async with opened() as (wns, transport):
        wns.token_answer = Reply(500)
        assert "firewall" in (await transport.check()).problem


async def test_after_a_suspend_nothing_is_sent_over_what_was_open_before(opened: Callable[..., Any]) -> None:
    """Also where the suspend was short, and the connection looks young."""
    async with opened() as (wns, transport):
        message = transport.prepare(NOTE)
        address = wns.address(1)
        assert await transport.send(message, delivery(transport, address)) == ACCEPTED
        before = wns.counters.connections
        assert await transport.send(message, delivery(transport, address)) == ACCEPTED
        assert wns.counters.connections == before
        transport.woke()
        assert await transport.send(message, delivery(transport, address)) == ACCEPTED
        assert wns.counters.connections == before + 1
