"""What one send does on the wire, and where it may go."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import ssl
from typing import Any

import pytest

from fanout.plugin import (
    Accepted,
    Address,
    AddressInvalid,
    ConfigurationError,
    Context,
    Deferred,
    Delivery,
    Gone,
    Misconfigured,
    Moved,
    Notification,
    Rejected,
    Scope,
    Secret,
    Throttled,
    Unavailable,
)
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator import Faults, Reply, Stall
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.transport import WebPushTransport
from fanout_webpush.vapid import make_vapid_keys
from fanout_webpush.vendors import Vendor

pytestmark = pytest.mark.anyio
VENDORS = ["mozilla", "google", "apple", "edge"]


def endpoint(address: Address) -> str:
    return str(json.loads(address.value)["endpoint"])


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
    """Sixty hosts where four may be busy: each has its turn within the patience of a delivery, and none is closed while it is busy."""
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
