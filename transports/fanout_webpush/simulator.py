"""A stand-in for the four vendors' push services on one port: strict, each with its quirks, and able to decrypt
messages.

A transport is pointed at it by `gateway`, so that endpoints keep their vendors' host names; the path tells which vendor
is asked. It offers HTTP/2 and HTTP/1.1 by ALPN, as `protocols` says. Facts about the real services are in `services`
and `outcome`; nothing here has been compared with them.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Self, Unpack
from uuid import UUID

import orjson

from fanout.plugin import Secret
from fanout.testing.simulator import Answer, Http2SimulatorOptions, Push, Reply, Request, Simulator
from fanout.testing.simulator.connection import Connection, StrictConnection
from fanout.testing.simulator.http1 import Http1Connection
from fanout.testing.simulator.lean import LeanConnection
from fanout_webpush.browsers import Browser, Undecryptable
from fanout_webpush.services import CONDITIONS, ORIGINS, PLAIN, SAYS, Said, endpoint_of, place_of
from fanout_webpush.tokens_check import TokenCheck
from fanout_webpush.vapid import VapidKey, make_vapid_keys
from fanout_webpush.vendors import Vendor

__all__ = ["WebPushSimulator"]

_MIX = (Vendor.GOOGLE,) * 4 + (Vendor.MOZILLA,) * 2 + (Vendor.APPLE, Vendor.EDGE)
"""The vendors whose browsers `address` makes, by number."""

_SEEDED = re.compile(r"(good|dead|other|throttled|slow|moved)-([0-9]{1,12})")
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
_TTL = re.compile(r"[0-9]{1,10}")
_MOST_TTL = {Vendor.MOZILLA: 30 * 86_400}
_BODY_LIMIT = 4096
_FOREIGN = "a key that no simulator has"
_LEAN_PATH = re.compile(rb"/(?:wpush/v2/|fcm/send/|Q|w/\?token=)")


class WebPushSimulator(Simulator):
    """The push services, and the browsers that subscribed to them.

    Browsers made by `address` behave by their name: `dead` unsubscribed, `other` subscribed under another VAPID key,
    `throttled` is told to wait one second once and then served, `slow` is answered `slow` seconds late, `moved`
    (Mozilla's only) has a new endpoint since. `received` holds the plaintext of accepted messages, by endpoint, while
    `keep` is set.
    """

    name: ClassVar[str] = "webpush"
    behaviours: ClassVar[tuple[str, ...]] = ("good", "dead", "other", "throttled", "slow", "moved")
    subject: ClassVar[str] = "mailto:ops@example.com"

    def __init__(
        self,
        *,
        protocols: Sequence[str] = ("h2", "http/1.1"),
        slow: float = 0.2,
        keep: bool = False,
        **options: Unpack[Http2SimulatorOptions],
    ) -> None:
        super().__init__(**options)
        self.protocols = tuple(protocols)
        self.slow = slow
        self.keep = keep
        self.received: dict[str, list[bytes]] = {}
        self.headers: dict[str, str] = {}
        """Of the last request."""
        self._secret = self._load_key()
        self.key = VapidKey.load(self._secret)
        self._browsers: dict[tuple[Vendor, str], Browser] = {}
        self._seeded: dict[tuple[Vendor, str], Browser] = {}
        self._throttled: set[str] = set()
        self._tokens = TokenCheck()

    async def __aenter__(self) -> Self:
        context = self.authority.server_context()
        context.set_alpn_protocols(list(self.protocols))
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _ByAlpn(self), self._host, self._port, ssl=context, ssl_handshake_timeout=5.0, backlog=1024
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    # -- the parts that a client needs

    def settings(self) -> dict[str, Any]:
        return {
            "gateway": self.url,
            "ca_file": self.ca_file,
            "vapid_private_key": self._secret.reveal(),
            "vapid_subject": self.subject,
        }

    def subscribe(
        self, user: str = "", *, vendor: str = "mozilla", behaviour: str = "good", server_key: str | None = None
    ) -> dict[str, Any]:
        """A browser of `user` subscribes under `server_key` (default: the one in `settings`): its PushSubscription as
        JSON has it."""
        token = f"{re.sub('[^A-Za-z0-9]', '', user) or 'somebody'}-{secrets.token_urlsafe(12)}"
        place = (Vendor(vendor), token)
        self._browsers[place] = Browser(endpoint_of(*place), server_key or self.key.public, behaviour)
        return self._browsers[place].subscription()

    @classmethod
    def address(cls, number: int, behaviour: str = "good") -> str:
        vendor = Vendor.MOZILLA if behaviour == "moved" else _MIX[number % len(_MIX)]
        return orjson.dumps(_browser((vendor, f"{behaviour}-{number}"), "").subscription()).decode()

    # -- the push services

    def handle(self, request: Request) -> Answer:
        self.headers = request.headers
        place = place_of(request.path)
        if place is None:
            return self._plain("404")
        vendor, token = place
        browser = self._browser(place)
        if browser is None:
            return self._wrong(vendor, "path")
        wrong = (
            _wrong_form(vendor, request)
            or self._tokens.wrong(vendor, request.headers.get("authorization", ""), ORIGINS[vendor], self.clock())
            or ("key" if self._tokens.key(request.headers["authorization"]) != browser.server_key else "")
        )
        if wrong:
            return self._wrong(vendor, wrong)
        if browser.behaviour == "dead":
            return self._wrong(vendor, "dead")
        if browser.behaviour == "throttled" and token not in self._throttled:
            self._throttled.add(token)
            refusal = self._wrong(vendor, "throttled")
            return Reply(refusal.status, {**refusal.headers, "retry-after": "1"}, refusal.body, reason=refusal.reason)
        if browser.behaviour == "moved":
            return self._moved(place)
        return self._deliver(vendor, browser, request)

    def error(self, reason: str, request: Request) -> Reply:
        """The answer of that name by the vendor that was asked, or the plain one of that status."""
        place = place_of(request.path)
        said = SAYS[place[0]].get(reason) if place is not None else None
        return self._reply(said, reason) if said is not None else self._plain(reason)

    def lean_push(self, block: bytes, body: bytes) -> Push | None:
        """The notification's id is inside the encryption, and stays there in lean mode."""
        found = _LEAN_PATH.search(block)
        place = place_of(_whole(block, found.start())) if found is not None else None
        return Push("", _digest(endpoint_of(*place)), "") if place is not None else None

    # -- inside

    def _browser(self, place: tuple[Vendor, str]) -> Browser | None:
        browser = self._browsers.get(place) or self._seeded.get(place)
        if browser is None and _SEEDED.fullmatch(place[1]):
            if len(self._seeded) >= 100_000:
                self._seeded.clear()
            browser = self._seeded[place] = _browser(place, self.key.public)
        return browser

    def _deliver(self, vendor: Vendor, browser: Browser, request: Request) -> Reply:
        try:
            plaintext = browser.decrypt(request.body) if request.body else b""
        except Undecryptable as failed:
            # The real services take it, and the browser throws it away in silence; here it is to be noticed.
            self.counters.violations.append(f"A body that no browser could read: {failed}.")
            return self._wrong(vendor, "encoding")
        if self.keep:
            self.received.setdefault(browser.endpoint, []).append(plaintext)
        ttl = min(int(request.headers["ttl"]), _MOST_TTL.get(vendor, 10**10))
        headers = {"location": f"{ORIGINS[vendor]}/m/{secrets.token_urlsafe(8)}", "ttl": str(ttl)}
        if vendor is Vendor.APPLE:
            headers = {"apns-id": secrets.token_hex(16)}
        elif vendor is Vendor.EDGE:
            headers |= {"X-WNS-Status": "received", "X-WNS-NotificationStatus": "received"}
        push = Push("", _digest(browser.endpoint), _notification(plaintext))
        return Reply(201, headers, push=push, after=self.slow if browser.behaviour == "slow" else 0.0)

    def _moved(self, place: tuple[Vendor, str]) -> Reply:
        """Mozilla's bridge: the same browser at a new endpoint."""
        new = (place[0], f"new{place[1].replace('moved-', '-')}")
        old = self._browser(place)
        assert old is not None
        if new not in self._browsers:
            self._browsers[new] = Browser(endpoint_of(*new), old.server_key, "good", old.key, old.auth)
        return Reply(301, {"location": endpoint_of(*new)}, reason="moved")

    def _wrong(self, vendor: Vendor, condition: str) -> Reply:
        word = CONDITIONS[vendor][condition]
        said = SAYS[vendor].get(word)
        return self._reply(said, word) if said is not None else self._plain(word)

    def _plain(self, status: str) -> Reply:
        return self._reply(PLAIN.get(status) or Said(int(status)), status)

    def _reply(self, said: Said, reason: str) -> Reply:
        return Reply(said.status, dict(said.headers), said.body, reason=reason)

    def _load_key(self) -> Secret:
        """The VAPID key in the simulator's folder, made if it is not there: subscriptions outlive a restart."""
        file = self.folder / "vapid.pem"
        if file.exists():
            return Secret(file.read_text())
        pair = make_vapid_keys()
        file.touch(mode=0o600)
        file.write_text(pair.private_pem.reveal())
        return pair.private_pem


class _ByAlpn(asyncio.Protocol):
    """Becomes the connection of the protocol that was agreed."""

    def __init__(self, simulator: WebPushSimulator) -> None:
        self._simulator = simulator

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        http1 = tls is not None and tls.selected_alpn_protocol() != "h2"
        kind: type[Connection] = (
            Http1Connection if http1 else LeanConnection if self._simulator.lean else StrictConnection
        )
        connection = kind(self._simulator)
        transport.set_protocol(connection)
        connection.connection_made(transport)


def _browser(place: tuple[Vendor, str], server_key: str) -> Browser:
    """The browser of a name that `address` made."""
    vendor, token = place
    behaviour = token.partition("-")[0]
    bound = _FOREIGN if behaviour == "other" else server_key
    return Browser.seeded(endpoint_of(*place), bound, behaviour, f"{vendor} {token}")


def _wrong_form(vendor: Vendor, request: Request) -> str:
    """The condition that the request's form breaks; "" for none."""
    given = request.headers
    if request.method != "POST":
        return "method"
    if "ttl" not in given:
        return "ttl missing"
    ttl = given["ttl"]
    if not _TTL.fullmatch(ttl) or (vendor is Vendor.APPLE and int(ttl) == 0):
        return "ttl"
    if vendor is Vendor.EDGE and given.get("x-wns-cache-policy", "cache") != ("cache" if int(ttl) else "no-cache"):
        return "cache policy"
    if given.get("urgency", "normal") not in ("very-low", "low", "normal", "high"):
        return "urgency"
    topic = given.get("topic", "good")
    if not _TOPIC.fullmatch(topic) or (vendor is Vendor.APPLE and len(topic) % 4 == 1):
        return "topic"
    if len(request.body) > _BODY_LIMIT:
        return "size"
    if (given.get("content-encoding") == "aes128gcm") != bool(request.body) or {"encryption", "crypto-key"} & set(
        given
    ):
        return "encoding"
    return ""


def _whole(block: bytes, start: int) -> str:
    """The string literal of a header block that begins at `start`: its length stands before it (RFC 7541, section
    5.1)."""
    length = block[start - 1]
    if length < 0x7F and start >= 2 and block[start - 2] == 0x7F:
        length += 127
    return block[start : start + length].decode("latin-1")


def _digest(endpoint: str) -> str:
    return blake2b(endpoint.encode(), digest_size=16).hexdigest()


def _notification(plaintext: bytes) -> str:
    """The notification's id in a payload, "" where there is none."""
    try:
        content = orjson.loads(plaintext)
        inner = content.get("notification", {}).get("data", {}) if "web_push" in content else content
        return str(UUID(inner["fanout"]["id"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
