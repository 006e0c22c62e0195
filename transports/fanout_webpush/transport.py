"""Web Push: the calls of one binding to the browsers' push services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from fanout.plugin import (
    ACCEPTED,
    Address,
    AddressInvalid,
    ConfigurationError,
    Context,
    Deferred,
    Delivery,
    Diagnosis,
    Gone,
    HostGuard,
    HostRefused,
    Message,
    Moved,
    Notification,
    Outcome,
    Rejected,
    RequestFailed,
    Response,
    Run,
    Scope,
    Throttled,
    fitting,
    literal,
    parse_retry_after,
    place_of_url,
    way_to,
)
from fanout_webpush.address import AESGCM, Subscription, application_server_key, canonical, ended_at, parse, take_apart
from fanout_webpush.encryption import MAX_PLAINTEXT
from fanout_webpush.hosts import ForeignAddress, Host, Hosts
from fanout_webpush.keyring import KnownKeys
from fanout_webpush.older_encryption import encrypt as encrypt_older
from fanout_webpush.older_encryption import take_apart as take_apart_older
from fanout_webpush.outcome import Answer, Effect, code_of, of_answer, of_failure, text_of
from fanout_webpush.payload import WebPushMessage, encode, ttl_field
from fanout_webpush.runs import HostRun
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.slices import Slices
from fanout_webpush.vapid import VapidKey, VapidTokens, b64url
from fanout_webpush.vendors import Vendor, edge_headers, vendor_of

__all__ = ["WebPushTransport"]

_FULL = 1.0
"""Seconds that a host waits while as many as may be are busy."""

Encrypt = Callable[[bytes, bytes, bytes], bytes]


class WebPushTransport:
    """One VAPID identity. The `kind` of an address is the id of the VAPID key that its subscription was made with.

    Raises `ConfigurationError` for a key that cannot be loaded, and for an encryption that is not installed.
    """

    def __init__(self, settings: WebPushSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._now = context.clock.now
        self._monotonic = context.clock.monotonic
        self._guard = HostGuard(
            settings.allowed_hosts, public_hosts=settings.allow_public_hosts, allow_private=settings.allow_private
        )
        self._settings = settings
        self._subject = settings.vapid_subject
        self._key: VapidKey
        self._by_kind: dict[str, VapidTokens] = {}
        self._keys = KnownKeys(settings)
        if settings.vapid_private_key is not None and settings.vapid_private_key.at_hand:
            VapidKey.load(settings.vapid_private_key)  # one in a file is looked at when this is opened
        if settings.vapid_previous_key is not None and settings.vapid_previous_key.at_hand:
            VapidKey.load(settings.vapid_previous_key, "vapid_previous_key")
        self._encrypt = _encryption(settings.encryption)
        self._hosts = Hosts(settings, context, self._guard)
        self._slices: Slices

    def __repr__(self) -> str:
        return f"<WebPushTransport {self._context.app}/{self._context.binding}>"

    async def __aenter__(self) -> Self:
        present, *previous = self._keys.load()
        self._key = present
        tokens = {key.id: VapidTokens(key, self._subject) for key in (*previous, present)}
        self._by_kind = {"": tokens[present.id], **tokens}  # "": an address made by hand
        await self._hosts.open()
        self._slices = Slices(self._encrypt, clock=self._monotonic)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._slices.close()
        await self._hosts.close()

    # -- work without a push service

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """The browser's PushSubscription, as JSON text or decoded. Raises `AddressInvalid`, without the address in its
        text.

        `applicationServerKey` beside its `endpoint` and `keys` says which VAPID key it was made with, where that may
        not be the present one: a browser keeps its subscription when the server's key changes.
        """
        subscription = parse(raw)
        ends = ended_at(raw)
        if ends is not None and ends <= self._now():
            raise AddressInvalid("The subscription has expired (expirationTime is past): let the page subscribe again.")
        guarded = self._guard.check(subscription.endpoint)
        subscription = subscription._replace(endpoint=guarded.url)
        return self._address(subscription, self._keys.kind(application_server_key(raw)), guarded.authority)

    fits = staticmethod(fitting(MAX_PLAINTEXT))
    """See `Transport`. The payload holds each value once, in the form of the content."""

    def prepare(self, notification: Notification) -> WebPushMessage:
        """The payload and headers, encoded once. Raises `MessageTooLarge` above 3993 bytes, or `InvalidMessage`."""
        return encode(notification, notification.override(self._context.binding, "webpush"))

    def ways(self) -> dict[str, str]:
        """By which way the push services are reached."""
        settings = self._settings
        if settings.gateway:
            host, port = place_of_url(settings.gateway)
            return {host: way_to(settings.egress(host, port))}
        names = [*self._guard.names, *(["other hosts"] if settings.allow_public_hosts else [])]
        return {name: way_to(settings.egress(name, 443), judged=True) for name in names}

    def woke(self) -> None:
        """See `Transport`: nothing is sent over a connection from before the machine was suspended."""
        self._hosts.retire()

    async def check(self) -> Diagnosis:
        """Sign a token and verify it. That needs no network; whether the push services like the subject is known
        before."""
        header = self._key.sign("https://push.invalid", self._subject, int(self._now()) + 60)
        if not self._key.verifies(header):
            return Diagnosis(
                "The VAPID key signs what its public key does not verify: make a new pair with `fanout keys vapid`."
            )
        return Diagnosis(detail=f"applicationServerKey {self._key.public}, subject {self._subject}")

    # -- sending

    def capacity(self, group: str) -> int:
        """The number of requests that the connections of this host take at once, as they stand now."""
        return self._hosts.capacity(group)

    def stats(self) -> dict[str, int]:
        """The figures of the pools of all hosts, added up."""
        return self._hosts.figures()

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Encrypt for this browser and post; again where the host turns out to lack HTTP/2, or wanted a newer token."""
        assert isinstance(message, WebPushMessage)
        host = self._hosts.get(delivery.group)
        if host is not None:
            host.active += 1
        else:
            begun = self._monotonic()
            try:
                host = await self._hosts.admit(delivery.group)
            except HostRefused as refused:
                return Rejected(f"host refused ({refused.reason})")
            if host is None:
                return Deferred("too many hosts at once (max_hosts)", _FULL)
            delivery.ttl = max(0, delivery.ttl - int(self._monotonic() - begun))
        renewed = False
        try:
            tokens = self._by_kind.get(delivery.kind)
            if tokens is None:
                return Gone("subscribed under another VAPID key", certain=False)
            subscription = take_apart(delivery.address)
            path = host.path_of(subscription.endpoint)
            while True:
                pool = host.pool
                try:
                    response = await self._post(host, tokens, message, delivery, subscription, path)
                except RequestFailed as failed:
                    if failed.reason == "alpn":
                        self._hosts.leave_http2(host)
                    elif host.pool is pool or failed.sent != "no":
                        return of_failure(failed.sent, failed.reason, **failed.evidence)
                    # Else another send has left HTTP/2 since this one chose it, and it was not sent.
                    continue
                if response.status == 201 and host.vendor is not Vendor.EDGE:
                    host.accepted += 1
                    return ACCEPTED
                outcome, effect = self._judge(host, response, delivery)
                if effect is not Effect.RENEW or renewed or not tokens.renew(host.origin, self._now()):
                    return self._after(host, outcome, effect, response, subscription, delivery)
                renewed = True
        except ForeignAddress:
            return Rejected("address is not of its group")
        except ValueError:
            return Gone("unusable subscription")
        finally:
            host.active -= 1
            if not host.active:
                self._hosts.left()

    def start(self, run: Run) -> Sequence[int]:
        """Encrypt a run in slices, and send each over the host's connections as they stand; a delivery that has to
        wait, and any to a host that is new or speaks HTTP/1.1, is for `send`."""
        host = self._hosts.get(run.group)
        if host is None or host.pool is None:
            return range(len(run))
        of_each, every = run.kinds, range(len(run))
        kinds = {*of_each}  # usually one: all were made with the present key
        unsent: list[int] = []
        for kind in kinds:
            indices = every if len(kinds) == 1 else [index for index in every if of_each[index] == kind]
            tokens, left = self._by_kind.get(kind), self._hosts.left
            if tokens is None:
                unsent += indices
                continue
            self._slices.begin(
                HostRun(run, indices, host, tokens, now=self._now, judge=self._judged, fail=self._failed, left=left)
            )
        return unsent

    # -- inside

    def _judged(
        self, host: Host, tokens: VapidTokens, authorization: str, response: Response, run: Run, index: int
    ) -> Outcome | None:
        """The outcome of an answer to a delivery of a run; None where it is to be sent again, with a newer token."""
        delivery = run.delivery(index)
        outcome, effect = self._judge(host, response, delivery)
        if effect is Effect.RENEW:
            now = self._now()
            if tokens.header(host.origin, now) is not authorization or tokens.renew(host.origin, now):
                return None
        return self._after(host, outcome, effect, response, take_apart(delivery.address), delivery)

    def _failed(self, host: Host, failed: RequestFailed) -> Outcome | None:
        """The outcome of a delivery of a run without an answer; None where the host turns out to lack HTTP/2."""
        if failed.reason == "alpn":
            self._hosts.leave_http2(host)
            return None
        return of_failure(failed.sent, failed.reason, **failed.evidence)

    def _post(
        self,
        host: Host,
        tokens: VapidTokens,
        message: WebPushMessage,
        delivery: Delivery,
        subscription: Subscription,
        path: str,
    ) -> Awaitable[Response]:
        """One request, over the protocol that the host speaks. Raises `RequestFailed`, and `ValueError` for keys that
        are none."""
        pool = host.pool
        if pool is None:
            return self._post_over_http1(host, tokens, message, delivery, subscription, path)
        if subscription.older and message.record:
            return self._post_older(host, tokens, message, delivery, subscription, path)
        head = host.head(tokens, "aes128gcm" if message.record else "", message.content_type, self._now())
        fields = ttl_field(host.ttl(delivery.ttl)) + message.fields
        if not message.record:
            return pool.request(head, path.encode(), fields, b"", fresh=delivery.fresh)
        _, p256dh, auth, _ = subscription
        return self._slices.request(pool, head, path.encode(), fields, message.record, p256dh, auth, delivery.fresh)

    async def _post_over_http1(
        self,
        host: Host,
        tokens: VapidTokens,
        message: WebPushMessage,
        delivery: Delivery,
        subscription: Subscription,
        path: str,
    ) -> Response:
        ttl = host.ttl(delivery.ttl)
        headers = {
            "Authorization": tokens.header(host.origin, self._now()),
            "TTL": str(ttl),
            **dict(message.headers),
        }
        if message.content_type:
            headers["Content-Type"] = message.content_type
        headers |= edge_headers(host.vendor, ttl)
        body = b""
        if message.record and subscription.older:
            retry_after, body = await self._seal_older(host, tokens, message, subscription)
            headers |= {name.title(): value for name, value in retry_after.items()}
        elif message.record:
            headers["Content-Encoding"] = "aes128gcm"
            body = await self._slices.encrypt(message.record, subscription.p256dh, subscription.auth)
        return await self._hosts.over_http1(host, path, headers, body, fresh=delivery.fresh)

    async def _post_older(
        self,
        host: Host,
        tokens: VapidTokens,
        message: WebPushMessage,
        delivery: Delivery,
        subscription: Subscription,
        path: str,
    ) -> Response:
        """Over HTTP/2 to a browser that knows aesgcm alone."""
        retry_after, body = await self._seal_older(host, tokens, message, subscription)
        pool = host.pool
        if pool is None:
            raise RequestFailed("no", "alpn")
        head = host.head(tokens, AESGCM, message.content_type, self._now())
        own = b"".join(literal(name, retry_after[name]) for name in ("encryption", "crypto-key"))
        fields = ttl_field(host.ttl(delivery.ttl)) + message.fields + own
        return await pool.request(head, path.encode(), fields, body, fresh=delivery.fresh)

    async def _seal_older(
        self, host: Host, tokens: VapidTokens, message: WebPushMessage, subscription: Subscription
    ) -> tuple[dict[str, str], bytes]:
        """The headers and the body of the older draft; keys and salt stand in its headers."""
        sealed = await self._slices.encrypt(message.record, subscription.p256dh, subscription.auth, encrypt_older)
        salt, ours, body = take_apart_older(sealed)
        authorization, signed_by = tokens.older(tokens.header(host.origin, self._now()))
        return {
            "authorization": authorization,
            "content-encoding": AESGCM,
            "encryption": f"salt={b64url(salt)}",
            "crypto-key": f"dh={b64url(ours)};{signed_by}",
        }, body

    def _judge(self, host: Host, response: Response, delivery: Delivery) -> tuple[Outcome, Effect]:
        retry_after = response.header("retry-after") if response.status >= 400 else None
        code = code_of(host.vendor, response.body, response.header)
        return of_answer(
            Answer(
                host.vendor,
                response.status,
                code,
                parse_retry_after(retry_after, self._now(), response.header("date") if retry_after else None),
                delivery.attempt,
                "" if code or response.status < 300 else text_of(response.status, response.body),
            )
        )

    def _after(
        self,
        host: Host,
        outcome: Outcome,
        effect: Effect,
        response: Response,
        subscription: Subscription,
        delivery: Delivery,
    ) -> Outcome:
        """Act on an answer besides its outcome, which this may change."""
        if outcome is ACCEPTED:
            host.accepted += 1
        if effect is Effect.FOLLOW:
            return self._moved(host, response, subscription, delivery) or outcome
        if effect is Effect.RETIRE and host.pool is not None:
            host.pool.retire()
        if not isinstance(outcome, Throttled) or outcome.scope is not Scope.ENDPOINT:
            return outcome
        if host.crowd.throttled(self._monotonic(), host.accepted):
            return Throttled(outcome.after, Scope.GROUP, f"{outcome.reason}, as most at this host")
        return outcome

    def _moved(self, host: Host, response: Response, subscription: Subscription, delivery: Delivery) -> Moved | None:
        """The new address, if it is one of the same vendor that the guard admits; a redirect to anywhere else is not
        followed."""
        try:
            guarded = self._guard.check(response.header("location") or "")
        except HostRefused:
            return None
        if vendor_of(guarded.authority) is not host.vendor or guarded.url == subscription.endpoint:
            return None
        return Moved(
            self._address(subscription._replace(endpoint=guarded.url), delivery.kind, guarded.authority),
            f"status {response.status}",
        )

    def _address(self, subscription: Subscription, kind: str, group: str) -> Address:
        return Address(canonical(subscription), kind=kind, group=group, identity=subscription.endpoint)


def _encryption(name: str) -> Encrypt:
    if name == "fanout":
        from fanout_webpush.encryption import encrypt

        return encrypt
    try:
        from fanout_webpush.pywebpush_encryption import encrypt as theirs
    except ImportError as error:
        raise ConfigurationError(
            f"encryption is pywebpush, which is not installed ({error.name}): pip install 'fanout-push[pywebpush]', "
            "or leave encryption out."
        ) from None
    return theirs
