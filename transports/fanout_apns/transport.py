"""APNs over HTTP/2: the calls of one binding to its gateway."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from fanout.plugin import (
    ACCEPTED,
    Address,
    AddressInvalid,
    ConfigurationError,
    Context,
    Delivery,
    Diagnosis,
    H2Pool,
    Head,
    Message,
    Misconfigured,
    Notification,
    Outcome,
    PoolSettings,
    RequestFailed,
    Requests,
    Response,
    Run,
    RunAnswers,
    client_tls,
    fitting,
    literal,
    parse_retry_after,
    place_of_url,
    way_to,
)
from fanout_apns.diagnosis import PROBE, diagnose, judge
from fanout_apns.outcome import UNCONNECTED, Answer, Effect, by_our_clock, of_answer, of_failure, parse_body
from fanout_apns.payload import LIMIT, RESERVED, ApnsMessage, Headers, encode
from fanout_apns.settings import ApnsSettings

if TYPE_CHECKING:
    from fanout_apns.auth import ProviderToken
    from fanout_apns.certificate import PushCertificate

__all__ = ["ApnsTransport", "tls"]

_log = logging.getLogger("fanout.apns")
_TOKEN = re.compile(r"(?:[0-9a-f]{2}){8,100}")
"""Apple asks not to assume a length; tokens seen have 32 bytes, those of live activities up to 80."""
_DEVICE = "/3/device/"
_PATH = _DEVICE.encode()
_ID = literal("apns-id", "0" * 36)[:-36]
"""The bytes before the 36 characters of a delivery id in its header field."""
_TICK = 60.0
"""Seconds between two looks at the provider token's age."""
_DAY = 86_400.0
"""Seconds between two looks at the end of a certificate."""
_CALM = 5.0
"""Seconds in which the connections are replaced once at most, however many answers ask for it: those come in bursts."""


class ApnsTransport:
    """One binding: its connections, its provider token (shared with other bindings of the same key), its messages.

    Opening raises `ConfigurationError` for a key or certificate that cannot be loaded.
    """

    def __init__(self, settings: ApnsSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._pool: H2Pool | None = None
        self._request: Callable[..., Awaitable[Response]] = _not_open
        self._token: ProviderToken | None = None
        self._generation = 0
        self._authorization = b""
        self._certificate: PushCertificate | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._heads: dict[tuple[str, int], Head] = {}
        self._authority = settings.url.removeprefix("https://")
        self._replaced_at = float("-inf")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._context.app}/{self._context.binding}>"

    async def __aenter__(self) -> Self:
        settings = self._settings
        if settings.key is not None:
            from fanout_apns.auth import shared_token

            self._token = shared_token(settings.team_id, settings.key_id, settings.key)
            self._tick()
            self._adopt()  # another binding of this process may have it already
        if settings.cert_file is not None:
            from fanout_apns.certificate import load

            self._certificate = load(settings.cert_file, settings.cert_key_file, settings.cert_passphrase)
            self._look_at_certificate()
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
        await self._close()

    # -- work without a gateway

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """The device token in lower-case hexadecimal, from itself or from `{"token": …}`. Raises `AddressInvalid`."""
        text = raw.get("token") if isinstance(raw, Mapping) else raw
        canonical = text.strip().lower() if isinstance(text, str) else ""
        if not _TOKEN.fullmatch(canonical):
            raise AddressInvalid(
                "Give an APNs address as the device token in hexadecimal, without spaces or brackets: "
                'in Swift, deviceToken.map { String(format: "%02x", $0) }.joined().'
            )
        return Address(canonical)

    fits = staticmethod(fitting(LIMIT, *RESERVED))
    """See `Transport`. The payload holds each value once, in the form of the content."""

    def prepare(self, notification: Notification) -> ApnsMessage:
        """The payload and headers, encoded once. Raises `MessageTooLarge` or `InvalidMessage`."""
        message = self._encode(notification)
        message.fields, message.head = _fields(message.headers), self._head(message.headers)
        return message

    # -- sending

    def capacity(self, group: str) -> int:
        """The number of requests that the connections take at once, as they stand now."""
        return self._pool.capacity() if self._pool is not None else 1

    def stats(self) -> dict[str, int]:
        """The pool's figures of its connections; empty before it is open."""
        return self._pool.figures() if self._pool is not None else {}

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Send once. Everything that does not differ between deliveries was encoded before."""
        assert isinstance(message, ApnsMessage)
        generation = self._generation
        fields = b"".join((self._authorization, message.fields, _ID, delivery.id.encode()))
        try:
            path = _PATH + delivery.address.encode()
            response = await self._request(message.head, path, fields, message.payload, fresh=delivery.fresh)
        except RequestFailed as failed:
            return self._act(*self._unanswered(failed), generation)
        if response.status == 200:
            return ACCEPTED
        return self._judged(message, response, generation)

    def start(self, run: Run) -> Sequence[int]:
        """Send a run over the connections as they stand; a delivery that has to wait, for a token too, is for
        `send`."""
        message, pool = run.message, self._pool
        assert isinstance(message, ApnsMessage)
        if pool is None or (self._token is not None and not self._authorization):
            return range(len(run))
        paths = f"{_DEVICE}{f' {_DEVICE}'.join(run.addresses)}".encode().split(b" ")
        common = b"".join((self._authorization, message.fields, _ID))
        requests = Requests(message.head, paths, common, run.ids(), [message.payload] * len(run))
        generation = self._generation
        answers = RunAnswers(
            run,
            lambda index, response: self._judged(message, response, generation),
            lambda failed: self._act(*self._unanswered(failed), generation),
        )
        return pool.start(answers, requests, run.fresh)

    def _judged(self, message: ApnsMessage, response: Response, generation: int) -> Outcome:
        """The outcome of an answer other than 200; `generation` is the token's that the request was sent with."""
        generation = generation or self._generation  # a request from before the first token has waited for this one
        reason, since = parse_body(response.body)
        retry_after, date, now = response.header("retry-after"), response.header("date"), self._context.clock.now()
        after = parse_retry_after(retry_after, now, date)
        answer = Answer(response.status, reason, by_our_clock(since, date, now), after)
        return self._act(*of_answer(answer, own_topic=message.headers.own_topic), generation)

    def ways(self) -> dict[str, str]:
        """By which way Apple is reached."""
        host, port = place_of_url(self._settings.url)
        return {host: way_to(self._settings.egress(host, port))}

    async def check(self) -> Diagnosis:
        """Post to a device token that cannot exist: that Apple calls it bad proves everything else right."""
        message = self.prepare(PROBE)
        outcome = await self.send(message, Delivery.of(Address("0" * 64)))
        trouble = self._pool.stats.last_trouble if self._pool is not None else ""
        found = diagnose(outcome, self._settings, trouble)
        return (
            found if self._certificate is None else judge(found, self._certificate.validity, self._context.clock.now())
        )

    def mended(self) -> None:
        """See `Transport`: a token that was refused is not presented again."""
        token = self._token
        if token is None or not token.drop_refused():
            return
        if self._context.fleet is None:
            token.refresh(*self._times())
            self._adopt()
        else:
            self._authorization = b""
            self._request = self._first  # waits for another
            self._renew()

    def woke(self) -> None:
        """See `Transport`: nothing is sent over a connection from before the machine was suspended."""
        if self._pool is not None:
            self._pool.retire()

    # -- inside

    def _encode(self, notification: Notification) -> ApnsMessage:
        overrides = notification.override(self._context.binding, "apns")
        return encode(notification, self._settings.topic, overrides)

    def _head(self, headers: Headers) -> Head:
        """One head for each push type and priority: it enters the header table of a connection once."""
        key = (headers.push_type, headers.priority if headers.own_topic else -headers.priority)
        head = self._heads.get(key)
        if head is None:
            fields = [("apns-push-type", headers.push_type), ("apns-priority", str(headers.priority))]
            if headers.own_topic and headers.topic:
                fields.append(("apns-topic", headers.topic))
            head = self._heads[key] = Head("POST", "https", self._authority, fields)
        return head

    async def _open(self) -> None:
        settings = self._settings
        self._pool = H2Pool(
            settings.url,
            ssl_context=tls(settings, self._certificate),
            settings=PoolSettings(
                connections=settings.connections,
                streams=settings.streams,
                request_timeout=settings.request_timeout,
                connect_timeout=min(10.0, settings.request_timeout),
                first_alone=settings.key is not None,
            ),
            clock=self._context.clock.monotonic,
            rng=self._context.rng,
            egress=settings.egress,
        )
        await self._pool.__aenter__()
        self._request = self._pool.request if self._token is None or self._authorization else self._first

    async def _close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    def _tick(self) -> None:
        """Renew the token when it is time, off the path of any send. A shared one only where this process presents
        it."""
        assert self._token is not None
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)
        if self._context.fleet is None:
            self._token.refresh(*self._times())
            self._adopt()
        elif self._token.text:
            self._renew()

    def _renew(self) -> asyncio.Task[None]:
        """Ask for the shared token: one question at a time, however many wait for it."""
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._ask())
        return self._renewing

    async def _ask(self) -> None:
        token, fleet = self._token, self._context.fleet
        assert token is not None
        assert fleet is not None
        try:
            await token.refresh_shared(fleet, *self._times())
            self._adopt()
        finally:
            self._renewing = None

    async def _token_there(self) -> None:
        """Wait for a token, for half of a request's time at most: Apple has the whole of it after that."""
        await asyncio.wait((self._renew(),), timeout=self._settings.request_timeout / 2)

    async def _first(self, head: Head, path: bytes, fields: bytes, payload: bytes, *, fresh: bool = False) -> Response:
        """A request from before there was a token: it waits for it."""
        await self._token_there()
        if self._pool is None or not self._authorization:
            raise RequestFailed("no", "closed", own=True)
        return await self._pool.request(head, path, self._authorization + fields, payload, fresh=fresh)

    def _times(self) -> tuple[float, float]:
        clock = self._context.clock
        return clock.now(), clock.monotonic()

    def _adopt(self) -> None:
        """Send with the token as it is now."""
        token = self._token
        if token is not None and token.generation != self._generation:
            self._generation = token.generation
            self._authorization = literal("authorization", f"bearer {token.text}", never_indexed=True)
            if self._pool is not None:
                self._request = self._pool.request

    def _unanswered(self, failed: RequestFailed) -> tuple[Outcome, Effect]:
        """The outcome of a request without an answer. The alert that refuses a certificate may be lost with its
        connection: where our own has ended, that is why none comes about."""
        outcome, effect = of_failure(failed.sent, failed.reason, failed.debug, **failed.evidence)
        ended = self._certificate is not None and self._certificate.validity.over(self._context.clock.now())
        if ended and failed.reason in UNCONNECTED and not failed.own:
            outcome = Misconfigured("certificate expired", named=False)
        return outcome, effect

    def _look_at_certificate(self) -> None:
        """Once a day, say that the certificate is about to end, or has."""
        assert self._certificate is not None
        self._looking = asyncio.get_running_loop().call_later(_DAY, self._look_at_certificate)
        validity, now = self._certificate.validity, self._context.clock.now()
        where = self._context.app, self._context.binding
        if problem := validity.problem(now):
            _log.error("%s/%s: %s", *where, problem)
        elif warning := validity.warning(now):
            _log.warning("%s/%s: %s", *where, warning)

    def _act(self, outcome: Outcome, effect: Effect, generation: int) -> Outcome:
        """Act on an answer; `generation` is the token's that the request was sent with."""
        if effect is Effect.NONE:
            return outcome
        token = self._token
        if effect is Effect.RENEW and token is None:
            return Misconfigured("ExpiredProviderToken")  # with a certificate there is no token to renew
        if effect is Effect.RENEW and token is not None:
            from fanout_apns.auth import Expired

            shared = self._context.fleet is not None
            verdict = token.expired(generation, *self._times(), shared=shared)
            if shared:
                self._renew()
            self._adopt()
            if verdict is Expired.CLOCK:
                outcome = Misconfigured("ExpiredProviderToken (the token is young: the clock of this machine is wrong)")
        elif effect is Effect.HOLD and token is not None:
            token.hold(*self._times())
            self._adopt()
        self._replace_connections()
        return outcome

    def _replace_connections(self) -> None:
        now = self._context.clock.monotonic()
        if self._pool is not None and now - self._replaced_at >= _CALM:
            self._replaced_at = now
            self._pool.retire()


def _not_open(*_: object, **__: object) -> asyncio.Future[Response]:
    raise RuntimeError("The APNs transport is not open: enter it with `async with` before sending.")


def tls(settings: ApnsSettings, certificate: PushCertificate | None) -> ssl.SSLContext:
    """The TLS context of a binding. Raises `ConfigurationError` for files that cannot be loaded."""
    try:
        return client_tls(
            ca_file=str(settings.ca_file) if settings.ca_file is not None else None,
            identity=certificate.identity if certificate is not None else None,
            shared=True,
        )
    except OSError as error:
        given = " and ".join(name for name in ("ca_file", "cert_file") if getattr(settings, name) is not None)
        raise ConfigurationError(
            f"{given} cannot be loaded ({error.strerror or type(error).__name__}): correct it."
        ) from None


@lru_cache(256)
def _fields(headers: Headers) -> bytes:
    """The fields that differ between messages, encoded."""
    own = {"apns-expiration": headers.expiration, "apns-collapse-id": headers.collapse_id or None}
    own["apns-topic"] = None if headers.own_topic else headers.topic
    fields = [*headers.extra, *((name, str(value)) for name, value in own.items() if value is not None)]
    return b"".join(literal(name, value) for name, value in fields)
