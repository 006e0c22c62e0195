"""What old browsers and self-hosted push services want: aesgcm, other ports, private networks, authorities of their
own."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import http_ece
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fanout import Notification
from fanout.bootstrap import SystemClock
from fanout.config import load
from fanout.errors import ConfigurationError
from fanout.plugin import AddressInvalid, AllowedHost, Context, Delivery, Rejected, Secret, Unavailable
from fanout.registry import Registry
from fanout_webpush.address import canonical, parse, take_apart
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.transport import WebPushTransport
from fanout_webpush.vapid import VapidKey
from tests.http.conftest import certificates  # noqa: F401
from tests.http.gateway import Certificates, Got, Peer, gateway

pytestmark = pytest.mark.anyio

KEY = Secret("A" * 42 + "E")


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Browser:
    """One that subscribed, and can read what it is sent."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = bytes(range(16))

    def subscription(self, url: str, **more: Any) -> dict[str, Any]:
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {"endpoint": url, "keys": {"p256dh": b64(point), "auth": b64(self.auth)}, **more}


def transport(**settings: Any) -> WebPushTransport:
    values = {"vapid_private_key": KEY, "vapid_subject": "mailto:ops@example.com", **settings}
    context = Context(app="default", binding="webpush", clock=SystemClock(), rng=random.Random(1))
    return WebPushTransport(WebPushSettings(**values), context)


@asynccontextmanager
async def served(certificates: Certificates, **settings: Any) -> AsyncIterator[tuple[WebPushTransport, Any]]:  # noqa: F811
    """A transport whose every push service is one server over HTTP/2, and what that is asked, one by one."""
    async with (
        gateway(certificates.server()) as server,
        transport(gateway=server.url, ca_file=Path(certificates.ca), **settings) as made,
    ):

        async def asked() -> tuple[Peer, Got]:
            peer = await server.accept()
            await peer.hello()
            return peer, await peer.request()

        yield made, asked


async def sent(made: WebPushTransport, asked: Any, raw: Any, block: bytes, body: bytes = b"", **more: Any) -> Any:
    message = made.prepare(more.pop("notification", Notification(title="Hello")))
    delivery = Delivery.of(made.parse_address(raw), **more)
    sending = asyncio.ensure_future(made.send(message, delivery))
    peer, got = await asked()
    peer.answer(got.stream, block, body)
    return await sending, got


URL = "https://updates.push.services.mozilla.com/wpush/v2/abc"
CREATED = b"\x08\x03201"


async def test_aesgcm_is_encrypted_as_the_older_draft_says(certificates: Certificates) -> None:  # noqa: F811
    browser = Browser()
    async with served(certificates) as (made, asked):
        raw = browser.subscription(URL, contentEncoding="aesgcm")
        outcome, got = await sent(made, asked, raw, CREATED)
        assert type(outcome).__name__ == "Accepted"
    headers = got.headers
    assert headers["content-encoding"] == "aesgcm"
    assert headers["content-type"] == "application/octet-stream"
    assert headers["authorization"].startswith("WebPush ey")
    parts = dict(part.split("=", 1) for part in headers["crypto-key"].split(";"))
    assert parts["p256ecdsa"] == VapidKey.load(KEY).public
    plain = http_ece.decrypt(
        got.body,
        salt=base64.urlsafe_b64decode(headers["encryption"].removeprefix("salt=") + "=="),
        private_key=browser.key,
        dh=base64.urlsafe_b64decode(parts["dh"] + "="),
        auth_secret=browser.auth,
        version="aesgcm",
    )
    assert orjson.loads(plain)["title"] == "Hello"


def test_an_older_subscription_keeps_its_form_in_the_directory() -> None:
    raw = Browser().subscription(URL, contentEncoding="aesgcm")
    made = transport()
    address = made.parse_address(raw)
    assert made.parse_address(address.value) == address
    assert take_apart(address.value) == parse(raw)
    assert take_apart(canonical(parse(Browser().subscription(URL)))).older is False
    with pytest.raises(AddressInvalid, match="contentEncoding"):
        made.parse_address(Browser().subscription(URL, contentEncoding="rot13"))


@pytest.mark.parametrize("body", [True, False])
async def test_every_request_says_what_it_carries(certificates: Certificates, body: bool) -> None:  # noqa: F811
    async with served(certificates) as (made, asked):
        raw = Browser().subscription(URL)
        notification = Notification(title="t") if body else Notification(data={})
        _, got = await sent(made, asked, raw, CREATED, notification=notification)
        assert got.headers["content-type"] == "application/octet-stream"
        assert bool(got.body) == body


@pytest.mark.parametrize(
    ("url", "most"),
    [
        (URL, 30 * 86_400),
        ("https://web.push.apple.com/abc", 30 * 86_400),
        ("https://fcm.googleapis.com/fcm/send/abc", 28 * 86_400),
    ],
)
async def test_the_ttl_is_what_the_service_takes(certificates: Certificates, url: str, most: int) -> None:  # noqa: F811
    async with served(certificates) as (made, asked):
        _, got = await sent(made, asked, Browser().subscription(url), CREATED, ttl=400 * 86_400)
        assert got.headers["ttl"] == str(most)


def test_a_subscription_whose_time_is_over_is_refused() -> None:
    made, now = transport(), SystemClock().now()
    with pytest.raises(AddressInvalid, match="expired"):
        made.parse_address(Browser().subscription(URL, expirationTime=(now - 10) * 1000))
    for future in (None, (now + 3600) * 1000, "soon"):
        made.parse_address(Browser().subscription(URL, expirationTime=future))


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"No   such\r\n\x07thing\x00", "No such thing"),
        (b"<html><title>Blocked</title><script>x</script><p>by <b>WAF</b></html>", "Blocked by WAF"),
        (b"bad endpoint " + URL.encode() + b" today", "bad endpoint … today"),
        (b"token eyJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwcz refused", "token … refused"),
        (b"request 7f3c2a91be44 failed", "request … failed"),
        ("größer als 4 KB".encode(), "größer als 4 KB"),
        (b"long " * 100, ("long " * 40).strip()),
    ],
)
async def test_what_an_unknown_answer_says_is_kept(certificates: Certificates, body: bytes, kept: str) -> None:  # noqa: F811
    async with served(certificates, allow_public_hosts=True) as (made, asked):
        raw = Browser().subscription("https://push.example.org/abc")
        outcome, _ = await sent(made, asked, raw, b"\x08\x03418", body)
        assert outcome == Rejected(f"status 418: {kept}")


# -- in a network of one's own


async def test_a_private_push_service_on_its_own_port_behind_its_own_authority(
    certificates: Certificates,  # noqa: F811
) -> None:
    async with gateway(certificates.server()) as server:
        place = f"127.0.0.1:{server.port}"
        entry = AllowedHost(place, private=True, ca_file=Path(certificates.ca))
        url = f"https://{place}/up"
        async with transport(allowed_hosts=(entry,)) as made:
            message = made.prepare(Notification(title="t"))
            sending = asyncio.ensure_future(
                made.send(message, Delivery.of(made.parse_address(Browser().subscription(url))))
            )
            peer = await server.accept()
            await peer.hello()
            got = await peer.request()
            peer.answer(got.stream, CREATED)
            assert type(await sending).__name__ == "Accepted"
            for foreign in (
                URL,
                f"https://127.0.0.1:{server.port + 1}/up",
                "https://127.0.0.1/up",
                "https://10.0.0.1/up",
            ):
                with pytest.raises(AddressInvalid):
                    made.parse_address(Browser().subscription(foreign))
        async with transport(allowed_hosts=(AllowedHost(place, private=True),)) as made:  # whose authority nobody knows
            address = made.parse_address(Browser().subscription(url))
            outcome = await made.send(made.prepare(Notification(title="t")), Delivery.of(address))
            assert isinstance(outcome, Unavailable)
            assert outcome.reason == "tls"


def loaded(folder: Path, hosts: str) -> Any:
    path = folder / "fanout.toml"
    path.write_text(
        f'storage = "memory:"\n[apps.default.transports.webpush]\nvapid_private_key = "{"A" * 42}E"\n'
        f'vapid_subject = "mailto:ops@example.com"\nallowed_hosts = {hosts}\n'
    )
    return load(path, Registry().settings_type, {}).apps["default"]["webpush"].settings


def test_entries_are_texts_or_tables(tmp_path: Path) -> None:
    (tmp_path / "lan.pem").write_text("x")
    settings = loaded(
        tmp_path,
        '["push.apple.com", { host = "push.lan:5443", private = true, ca_file = "lan.pem" }, { host = "up.example.org:8443" }]',
    )
    assert settings.allowed_hosts == (
        "push.apple.com",
        AllowedHost("push.lan:5443", private=True, ca_file=tmp_path / "lan.pem"),
        AllowedHost("up.example.org:8443"),
    )


@pytest.mark.parametrize(
    ("hosts", "problem"),
    [
        ('[{ host = "push.lan", privat = true }]', "allowed_hosts"),
        ("[{ private = true }]", "allowed_hosts"),
        ('[{ host = "push lan", private = true }]', "no host"),
        ('[{ host = "https://push.lan", private = true }]', "no host"),
        ('[{ host = "push.lan:0", private = true }]', "no host"),
        ('[{ host = "push.lan:99999", private = true }]', "no host"),
        ('[{ host = "ntfy" }]', "private = true"),
        ('[{ host = "10.0.0.1" }]', "private = true"),
        ('[{ host = "push.lan", private = true, ca_file = "absent.pem" }]', "ca_file"),
    ],
)
def test_entries_that_cannot_be_meant_are_refused(tmp_path: Path, hosts: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        loaded(tmp_path, hosts)
