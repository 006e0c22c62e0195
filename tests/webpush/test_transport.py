"""What one send does on the wire, and where it may go."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import pytest

from fanout.plugin import (
    Accepted,
    ConfigurationError,
    Delivery,
    Gone,
    Misconfigured,
    Moved,
    Notification,
    Rejected,
    Throttled,
)
from fanout.testing.simulator import Reply
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.vendors import Vendor
from tests.webpush.sending import VENDORS, endpoint

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("vendor", VENDORS)
async def test_each_vendors_browser_reads_what_was_said(rig: Any, vendor: str) -> None:
    async with rig() as each:
        address = each.subscribe(vendor)
        assert isinstance(await each.send(address, title="Hello", data={"n": 1}), Accepted)
        (plaintext,) = each.simulator.received[endpoint(address)]
        assert json.loads(plaintext)["title"] == "Hello"
        assert json.loads(plaintext)["fanout"] == {"id": "0197f0c0-0000-7000-8000-000000000000"}


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_empty_notification_is_a_request_without_a_body(rig: Any, vendor: str) -> None:
    async with rig() as each:
        address = each.subscribe(vendor)
        message = each.transport.prepare(Notification())
        assert isinstance(await each.transport.send(message, Delivery.of(address)), Accepted)
        assert each.simulator.received[endpoint(address)] == [b""]
        assert "content-encoding" not in each.simulator.headers


@pytest.mark.parametrize(
    ("vendor", "ttl", "sent", "policy"),
    [
        ("mozilla", 0, "0", None),
        ("mozilla", 77, "77", None),
        ("google", 0, "0", None),
        ("apple", 0, "1", None),
        ("apple", 5, "5", None),
        ("edge", 0, "0", "no-cache"),
        ("edge", 60, "60", "cache"),
    ],
)
async def test_the_ttl_is_what_remains(rig: Any, vendor: str, ttl: int, sent: str, policy: str | None) -> None:
    async with rig() as each:
        assert isinstance(await each.send(each.subscribe(vendor), ttl=ttl), Accepted)
        assert each.simulator.headers["ttl"] == sent
        assert each.simulator.headers.get("x-wns-cache-policy") == policy


@pytest.mark.parametrize("vendor", VENDORS)
async def test_urgency_and_topic(rig: Any, vendor: str) -> None:
    async with rig() as each:
        await each.send(each.subscribe(vendor), title="x", lane="urgent", collapse_key="order 4711")
        assert each.simulator.headers["urgency"] == "high"
        assert each.simulator.headers["topic"] == "Rb0HWjLBse4WQtIpPe7FiuGBf7TGSGsF"


async def test_a_host_has_one_token_for_all_its_requests(rig: Any) -> None:
    async with rig() as each:
        seen: dict[str, set[str]] = {vendor: set() for vendor in VENDORS}
        for vendor in VENDORS * 3:
            await each.send(each.subscribe(vendor))
            seen[vendor].add(each.simulator.headers["authorization"])
        assert [len(tokens) for tokens in seen.values()] == [1, 1, 1, 1]
        assert len(set.union(*seen.values())) == 4


async def test_each_host_is_a_group_with_connections_of_its_own(rig: Any) -> None:
    async with rig() as each:
        groups = {each.subscribe(vendor).group for vendor in VENDORS}
        assert len(groups) == 4
        for vendor in VENDORS:
            await each.send(each.subscribe(vendor))
        assert each.simulator.counters.connections == 4
        assert each.transport.capacity("fcm.googleapis.com") == 500
        assert each.transport.capacity("wns2-sim.notify.windows.com") == 16
        assert each.transport.capacity("not.there") == 1


async def test_a_host_without_http2_is_spoken_to_in_http1(rig: Any) -> None:
    async with rig(simulator={"protocols": ("http/1.1",)}) as each:
        addresses = [each.subscribe("google") for _ in range(30)]
        outcomes = await asyncio.gather(*(each.send(address) for address in addresses))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert each.simulator.counters.accepted == 30
        assert each.transport.capacity("fcm.googleapis.com") == 16


async def test_a_send_that_is_encrypted_after_http2_was_left_goes_over_http1(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool that it chose is closed by then, by the first send that learned of the missing HTTP/2."""
    async with rig(simulator={"protocols": ("http/1.1",)}) as each:
        address = each.subscribe("google")
        host = await each.transport._hosts.admit(address.group)
        host.active -= 1
        encrypt = each.transport._encrypt

        def leaving(*args: bytes) -> bytes:
            if host.pool is not None:
                each.transport._hosts.leave_http2(host)  # before the request is made, and after its protocol was chosen
            return encrypt(*args)

        monkeypatch.setattr(each.transport._slices, "_encrypt", leaving)
        assert isinstance(await each.send(address), Accepted)
        assert each.simulator.counters.accepted == 1


# -- moved


async def test_a_moved_endpoint_gives_its_new_address(rig: Any) -> None:
    async with rig() as each:
        address = each.subscribe("mozilla", behaviour="moved")
        outcome = await each.send(address)
        assert isinstance(outcome, Moved)
        assert outcome.address.kind == address.kind
        assert endpoint(outcome.address) != endpoint(address)
        assert isinstance(await each.send(outcome.address), Accepted)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/wpush/v2/relative",
        "http://updates.push.services.mozilla.com/wpush/v2/x",
        "https://fcm.googleapis.com/fcm/send/x",
        "https://evil.example/",
        "https://updates.push.services.mozilla.com@evil.example/",
        "https://127.0.0.1/",
        "https://updates.push.services.mozilla.com:8443/wpush/v2/x",
    ],
)
async def test_a_move_to_anywhere_else_is_not_followed(rig: Any, location: str) -> None:
    async with rig() as each:
        address = each.subscribe("mozilla")
        each.simulator.script = lambda request: Reply(301, {"location": location} if location else {})
        assert await each.send(address) == Rejected("status 301")


async def test_a_move_to_itself_is_no_move(rig: Any) -> None:
    async with rig() as each:
        address = each.subscribe("mozilla")
        each.simulator.script = lambda request: Reply(301, {"location": endpoint(address)})
        assert await each.send(address) == Rejected("status 301")


# -- the rest


async def test_check_proves_the_key_without_a_request(rig: Any) -> None:
    async with rig() as each:
        diagnosis = await each.transport.check()
        assert diagnosis.ok
        assert each.simulator.key.public in diagnosis.detail
        assert each.simulator.counters.connections == 0


async def test_a_key_that_is_none_is_refused_before_anything_is_opened(transport_to: Any) -> None:
    async with WebPushSimulator() as server:
        with pytest.raises(ConfigurationError, match="vapid_private_key is no VAPID private key"):
            transport_to(server, vapid_private_key="nonsense")
        with pytest.raises(ConfigurationError, match="vapid_previous_key"):
            transport_to(server, vapid_previous_key="nonsense")


async def test_a_ca_file_that_is_none_is_refused_at_opening(transport_to: Any, tmp_path: Any) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    async with WebPushSimulator() as server:
        with pytest.raises(ConfigurationError, match="ca_file"):
            async with transport_to(server, ca_file=file):
                pass


async def test_before_opening_a_send_says_what_to_do(transport_to: Any) -> None:
    async with WebPushSimulator() as server:
        transport = transport_to(server)
        address = transport.parse_address(server.subscribe("me"))
        with pytest.raises(RuntimeError, match="async with"):
            await transport.send(transport.prepare(Notification(title="x")), Delivery.of(address))


async def test_nothing_secret_is_shown(rig: Any) -> None:
    async with rig() as each:
        address = each.subscribe()
        shown = f"{each.transport!r} {address!r} {address} {each.transport._hosts!r} {each.simulator.key!r}"
        for secret in (endpoint(address), json.loads(address.value)["keys"]["auth"], "PRIVATE"):
            assert secret not in shown


async def test_overrides_by_the_bindings_or_the_transports_name(rig: Any) -> None:
    async with rig() as each:
        address = each.subscribe()
        await each.send(address, title="x", transports={"webpush": {"silent": True}})
        assert json.loads(each.simulator.received[endpoint(address)][0])["silent"] is True


async def test_the_same_device_has_one_identity(rig: Any) -> None:
    async with rig() as each:
        raw = each.simulator.subscribe("me")
        one, two = each.transport.parse_address(raw), each.transport.parse_address(json.dumps(raw, indent=2))
        assert one == two
        assert one.digest == two.digest
        shouted = {**raw, "endpoint": raw["endpoint"].replace("https://updates", "HTTPS://UPDATES")}
        assert each.transport.parse_address(shouted).digest == one.digest


async def test_the_tls_contexts_check_names(rig: Any) -> None:
    async with rig() as each:
        context = each.transport._hosts._tls
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


_TELL_NO_KEY = {"updates.push.services.mozilla.com", "wns2-sim.notify.windows.com"}
"""The services that answer a bare 401 where the key is another."""


@pytest.mark.parametrize("behaviour", WebPushSimulator.behaviours)
async def test_browsers_that_every_process_knows(rig: Any, behaviour: str) -> None:
    kinds = {"good": Accepted, "dead": Gone, "other": Gone, "throttled": Throttled, "slow": Accepted, "moved": Moved}
    async with rig(simulator={"slow": 0.01}) as each:
        for number in range(8):
            address = each.transport.parse_address(WebPushSimulator.address(number, behaviour))
            outcome = await each.send(address)
            if behaviour == "other" and address.group in _TELL_NO_KEY:
                assert isinstance(outcome, Misconfigured)
                continue
            assert isinstance(outcome, kinds[behaviour])
            if behaviour == "throttled":
                assert isinstance(await each.send(address), Accepted)
    vendors = {json.loads(WebPushSimulator.address(n))["endpoint"].split("/")[2] for n in range(8)}
    assert len(vendors) == len(Vendor) - 1
