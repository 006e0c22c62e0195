"""The simulated push services are as strict as the real ones are said to be; asked here by clients of other makes."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import h2.config
import h2.connection
import h2.events
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fanout.plugin import Accepted, Delivery, Notification
from fanout.testing.simulator import Faults, read_ledger
from fanout_webpush.address import canonical, parse
from fanout_webpush.encryption import encrypt
from fanout_webpush.services import ORIGINS
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.vapid import VapidKey
from fanout_webpush.vendors import Vendor

pytestmark = pytest.mark.anyio
VENDORS = [Vendor.MOZILLA, Vendor.GOOGLE, Vendor.APPLE, Vendor.EDGE]


class Client:
    """Asks over HTTP/1.1 with aiohttp, headers as given."""

    def __init__(self, server: WebPushSimulator, session: aiohttp.ClientSession) -> None:
        self.server = server
        self._session = session

    def good(self, vendor: Vendor, **changes: str | None) -> dict[str, str]:
        """Headers that every service takes, with changes; None leaves one out."""
        expires = int(time.time()) + 3600
        headers: dict[str, str | None] = {
            "TTL": "60",
            "Content-Encoding": "aes128gcm",
            "Authorization": self.server.key.sign(ORIGINS[vendor], "mailto:a@example.com", expires),
        }
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in headers.items() if value is not None}

    async def post(
        self, subscription: dict[str, Any], headers: dict[str, str], body: bytes | None = None, method: str = "POST"
    ) -> tuple[int, bytes, Any]:
        parsed = parse(subscription)
        if body is None:
            body = encrypt(b'{"title":"x"}\x02', parsed.p256dh, parsed.auth)
        path = "/" + parsed.endpoint.split("/", 3)[3]
        response = await self._session.request(method, self.server.url + path, data=body, headers=headers)
        return response.status, await response.read(), response.headers


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Client]:
    async with WebPushSimulator(keep=True, **options) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        context.set_alpn_protocols(["http/1.1"])
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector, skip_auto_headers=["Content-Type"]) as session:
            yield Client(server, session)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_good_push_is_taken(vendor: Vendor) -> None:
    async with client() as each:
        subscription = each.server.subscribe("me", vendor=vendor)
        status, _, headers = await each.post(subscription, each.good(vendor))
        assert status == 201
        assert ("apns-id" in headers) is (vendor is Vendor.APPLE)
        assert ("Location" in headers) is (vendor is not Vendor.APPLE)
        assert each.server.received[subscription["endpoint"]] == [b'{"title":"x"}']


WRONG: list[tuple[str, dict[str, str | None], dict[Vendor, tuple[int, str]]]] = [
    (
        "no TTL",
        {"TTL": None},
        {
            Vendor.MOZILLA: (400, "111"),
            Vendor.GOOGLE: (400, ""),
            Vendor.APPLE: (400, "BadTtl"),
            Vendor.EDGE: (400, ""),
        },
    ),
    ("no number", {"TTL": "soon"}, {Vendor.MOZILLA: (400, "112"), Vendor.APPLE: (400, "BadTtl")}),
    ("TTL of 0", {"TTL": "0"}, {Vendor.MOZILLA: (201, ""), Vendor.APPLE: (400, "BadTtl"), Vendor.EDGE: (400, "")}),
    ("TTL of 0, not cached", {"TTL": "0", "X_WNS_Cache_Policy": "no-cache"}, {Vendor.EDGE: (201, "")}),
    ("cached, not cached", {"X_WNS_Cache_Policy": "no-cache"}, {Vendor.EDGE: (400, "")}),
    ("urgency", {"Urgency": "now"}, {Vendor.MOZILLA: (400, ""), Vendor.APPLE: (400, "BadUrgency")}),
    ("topic", {"Topic": "a b"}, {Vendor.MOZILLA: (400, "113"), Vendor.APPLE: (400, "BadWebPushTopic")}),
    ("long topic", {"Topic": "x" * 33}, {Vendor.MOZILLA: (400, "113"), Vendor.APPLE: (400, "BadWebPushTopic")}),
    ("topic 4n+1", {"Topic": "x" * 5}, {Vendor.MOZILLA: (201, ""), Vendor.APPLE: (400, "BadWebPushTopic")}),
    ("old encoding", {"Content_Encoding": "aesgcm"}, {Vendor.MOZILLA: (400, "110"), Vendor.GOOGLE: (400, "")}),
    ("old header", {"Crypto_Key": "dh=x"}, {Vendor.MOZILLA: (400, "110")}),
    (
        "no token",
        {"Authorization": None},
        {
            Vendor.MOZILLA: (401, "109"),
            Vendor.GOOGLE: (400, "UnauthorizedRegistration"),
            Vendor.APPLE: (400, "BadAuthorizationHeader"),
            Vendor.EDGE: (401, ""),
        },
    ),
    (
        "no vapid token",
        {"Authorization": "Bearer x"},
        {
            Vendor.MOZILLA: (401, "109"),
            Vendor.GOOGLE: (401, ""),
            Vendor.APPLE: (403, "BadJwtToken"),
            Vendor.EDGE: (401, ""),
        },
    ),
    ("half a token", {"Authorization": "vapid t=a.b.c, k=d"}, {Vendor.APPLE: (403, "BadJwtToken")}),
]


@pytest.mark.parametrize(("name", "changes", "expected"), WRONG, ids=[name for name, *_ in WRONG])
async def test_what_is_wrong_with_the_headers(
    name: str, changes: dict[str, str | None], expected: dict[Vendor, tuple[int, str]]
) -> None:
    async with client() as each:
        for vendor, (status, word) in expected.items():
            subscription = each.server.subscribe("me", vendor=vendor)
            got, body, _ = await each.post(subscription, each.good(vendor, **changes))
            assert (got, word in body.decode()) == (status, True), (vendor, body)


def _signed(server: WebPushSimulator, vendor: Vendor, **changes: Any) -> str:
    claims = {"origin": ORIGINS[vendor], "subject": "mailto:a@example.com", "expires_at": int(time.time()) + 3600}
    key = changes.pop("key", server.key)
    return str(key.sign(**{**claims, **changes}))


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"origin": "https://other.example"}, [401, 403, 403, 401]),
        ({"origin": "https://other.example/"}, [401, 403, 403, 401]),
        ({"expires_at": 1_500_000_000}, [401, 401, 403, 401]),
        ({"expires_at": int(time.time()) + 90_000}, [401, 401, 403, 401]),
        ({"subject": ""}, [401, 201, 403, 201]),
        ({"subject": "mailto:<a@b.c>"}, [201, 201, 403, 201]),
        ({"subject": "mailto:me@localhost"}, [201, 201, 403, 201]),
        ({"key": VapidKey(ec.generate_private_key(ec.SECP256R1()))}, [401, 403, 400, 401]),
    ],
)
async def test_tokens_are_judged_as_each_vendor_does(changes: dict[str, Any], refused: list[int]) -> None:
    async with client() as each:
        for vendor, status in zip(VENDORS, refused, strict=True):
            subscription = each.server.subscribe("me", vendor=vendor)
            headers = each.good(vendor, Authorization=_signed(each.server, vendor, **changes))
            assert (await each.post(subscription, headers))[0] == status, vendor


async def test_a_token_with_a_changed_byte_is_refused() -> None:
    async with client() as each:
        token = _signed(each.server, Vendor.MOZILLA)
        head, dot, rest = token.rpartition(".")
        for spoiled in (head + dot + ("A" if rest[0] != "A" else "B") + rest[1:], token.replace("t=e", "t=f")):
            headers = each.good(Vendor.MOZILLA, Authorization=spoiled)
            assert (await each.post(each.server.subscribe("me"), headers))[0] == 401


async def test_a_body_over_4096_bytes_is_too_large() -> None:
    async with client() as each:
        for vendor, status in zip(VENDORS, [413] * 4, strict=True):
            subscription = each.server.subscribe("me", vendor=vendor)
            parsed = parse(subscription)
            fits = encrypt(bytes(3993) + b"\x02", parsed.p256dh, parsed.auth)
            assert (await each.post(subscription, each.good(vendor), fits))[0] == 201
            assert (await each.post(subscription, each.good(vendor), fits + b"x"))[0] == status


async def test_a_body_that_the_browser_cannot_read_is_noticed() -> None:
    async with client() as each:
        subscription = each.server.subscribe("me")
        other = parse(each.server.subscribe("you"))
        body = encrypt(b"x\x02", other.p256dh, other.auth)
        assert (await each.post(subscription, each.good(Vendor.MOZILLA), body))[0] == 400
        assert each.server.counters.accepted == 0
        assert "no browser could read" in each.server.counters.violations[0]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", None, 405), ("POST", "/nowhere", 404)])
async def test_other_methods_and_places(method: str, path: str | None, status: int) -> None:
    async with client() as each:
        subscription = each.server.subscribe("me")
        if path is not None:
            subscription["endpoint"] = ORIGINS[Vendor.MOZILLA] + path
        assert (await each.post(subscription, each.good(Vendor.MOZILLA), method=method))[0] == status


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_endpoint_that_was_never_made(vendor: Vendor) -> None:
    async with client() as each:
        subscription = each.server.subscribe("me", vendor=vendor)
        subscription["endpoint"] += "x"
        assert (await each.post(subscription, each.good(vendor)))[0] == 404


async def test_what_was_accepted_is_in_the_ledger(tmp_path: Any) -> None:
    id = "0197f0c0-0000-7000-8000-000000000000"
    async with client(ledger=tmp_path / "ledger") as each:
        for vendor in VENDORS:
            subscription = each.server.subscribe("me", vendor=vendor)
            parsed = parse(subscription)
            body = encrypt(json.dumps({"fanout": {"id": id}}).encode() + b"\x02", parsed.p256dh, parsed.auth)
            await each.post(subscription, each.good(vendor), body)
    entries = list(read_ledger(tmp_path / "ledger"))
    assert [entry.notification for entry in entries] == [id] * 4
    assert len({entry.address for entry in entries}) == 4


async def test_lean_and_fast_it_still_writes_its_ledger(transport_to: Any, tmp_path: Any) -> None:
    async with WebPushSimulator(lean=True, ledger=tmp_path / "ledger") as server, transport_to(server) as transport:
        addresses = [transport.parse_address(WebPushSimulator.address(n)) for n in range(6)]
        for token in ("x" * 90, "y" * 111, "z" * 118, "v" * 200):  # around where a length takes a second byte
            raw = {
                **server.subscribe("me", vendor="google"),
                "endpoint": f"https://fcm.googleapis.com/fcm/send/{token}",
            }
            addresses.append(transport.parse_address(raw))
        message = transport.prepare(Notification(title="x"))
        outcomes = await asyncio.gather(*(transport.send(message, Delivery.of(address)) for address in addresses))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert {entry.address for entry in read_ledger(tmp_path / "ledger")} == {address.digest for address in addresses}


async def test_over_http2_with_hyper_h2() -> None:
    async with WebPushSimulator(keep=True) as server:
        subscription = server.subscribe("me", vendor="google")
        parsed = parse(subscription)
        body = encrypt(b"hello\x02", parsed.p256dh, parsed.auth)
        context = ssl.create_default_context(cafile=server.ca_file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]), ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        connection.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "fcm.googleapis.com"),
                (":path", "/" + parsed.endpoint.split("/", 3)[3]),
                ("ttl", "60"),
                ("content-encoding", "aes128gcm"),
                ("authorization", _signed(server, Vendor.GOOGLE)),
            ],
        )
        connection.send_data(1, body, end_stream=True)
        writer.write(connection.data_to_send())
        status = ""
        while not status:
            for event in connection.receive_data(await reader.read(65_536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[":status"]
        writer.close()
        await writer.wait_closed()
        assert status == "201"
        assert server.received[subscription["endpoint"]] == [b"hello"]
        assert not server.counters.violations


async def test_faults_by_a_vendors_name_and_by_status() -> None:
    async with client(faults=Faults(errors={"errno 201": 1.0})) as each:
        status, body, headers = await each.post(each.server.subscribe("me"), each.good(Vendor.MOZILLA))
        assert (status, json.loads(body)["errno"], headers["Retry-After"]) == (503, 201, "120")
        each.server.faults = Faults(errors={"502": 1.0})
        assert (await each.post(each.server.subscribe("me"), each.good(Vendor.MOZILLA)))[0] == 502


async def test_addresses_are_the_same_everywhere_and_after_a_restart(tmp_path: Any) -> None:
    assert WebPushSimulator.address(7) == WebPushSimulator.address(7)
    assert len({WebPushSimulator.address(n, "slow") for n in range(20)}) == 20
    assert canonical(parse(WebPushSimulator.address(7)))
    async with WebPushSimulator(folder=tmp_path) as server:
        first = server.settings()["vapid_private_key"]
    async with WebPushSimulator(folder=tmp_path) as server:
        assert server.settings()["vapid_private_key"] == first


async def test_as_a_process_of_its_own(tmp_path: Any) -> None:
    command = [sys.executable, "-m", "fanout.testing.simulator", "webpush", "--ca-dir", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = json.loads(await process.stdout.readline())
    assert said["name"] == "webpush"
    assert set(said["settings"]) == {"gateway", "ca_file", "vapid_private_key", "vapid_subject"}
    process.stdin.close()
    assert await process.wait() == 0
