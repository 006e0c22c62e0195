"""FCM over HTTP/2: the calls of one binding to its gateway."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from fanout.plugin import (
    ACCEPTED,
    Address,
    ConfigurationError,
    Context,
    Deferred,
    Delivery,
    Diagnosis,
    H2Pool,
    Head,
    Message,
    Misconfigured,
    Moved,
    Notification,
    Outcome,
    PoolSettings,
    RequestFailed,
    Requests,
    Response,
    Run,
    RunAnswers,
    Scope,
    Throttled,
    Token,
    TokenError,
    Unavailable,
    client_tls,
    fitting,
    parse_retry_after,
    place_of_url,
    way_to,
)
from fanout_fcm.address import RELAYED, Relays, parse_address
from fanout_fcm.auth import Credentials
from fanout_fcm.diagnosis import PROBE, of_probe, of_token
from fanout_fcm.outcome import Answer, Reauthenticate, of_answer, of_failure
from fanout_fcm.payload import LIMIT, RESERVED, FcmMessage, encode
from fanout_fcm.portion import Portion, portion_of
from fanout_fcm.settings import FcmSettings
from fanout_fcm.shaper import Shaper

__all__ = ["FcmTransport", "make"]

_LONGEST_TURN = 2.0
"""Seconds that a send waits for its turn at the project's rate; where it would be more, the whole binding waits."""


def make(settings: FcmSettings, context: Context) -> FcmTransport:
    """The transport of a binding."""
    return FcmTransport(settings, context)


class FcmTransport:
    """One binding: its connections, its access token and its rate.

    Opening raises `ConfigurationError` for a key or a `ca_file` that cannot be loaded.
    """

    one_gateway = True
    """Google takes the same token for all platforms."""

    def __init__(self, settings: FcmSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._monotonic = context.clock.monotonic
        self._path = b""
        self._relays = Relays()
        self._portion: Portion | None = None
        self._shaper: Shaper | None = None
        self._credentials: Credentials | None = None
        self._pool: H2Pool | None = None
        self._current: Callable[[], Token | None] = _not_open
        self._request: Callable[..., asyncio.Future[Response]] = _not_open
        self._token: Token | None = None
        self._head = Head("POST", "https", "not.open")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._context.app}/{self._context.binding}>"

    async def __aenter__(self) -> Self:
        settings = self._settings
        if settings.auth == "service_account":
            settings.check_account()
        self._path = f"/v1/projects/{settings.project}/messages:send".encode()
        self._portion = portion_of(settings, self._context)
        self._shaper = None if self._portion is None else self._portion.shaper
        try:
            ca_file = str(settings.ca_file) if settings.ca_file is not None else None
            context = client_tls(ca_file=ca_file, shared=True)
            token_context = client_tls(ca_file=ca_file, alpn=("http/1.1",), shared=True)
        except OSError as error:
            raise ConfigurationError(
                f"ca_file cannot be loaded ({error.strerror or type(error).__name__}): use a file of PEM certificates."
            ) from None
        self._credentials = Credentials(settings, self._context, token_context)
        self._pool = H2Pool(
            settings.gateway,
            ssl_context=context,
            settings=PoolSettings(
                connections=settings.connections,
                streams=settings.streams,
                max_waiting=settings.connections * settings.streams,
                request_timeout=settings.request_timeout,
                connect_timeout=min(10.0, settings.request_timeout),
            ),
            clock=self._monotonic,
            rng=self._context.rng,
            egress=settings.egress,
        )
        await self._pool.__aenter__()
        self._request = self._pool.request
        self._current = self._credentials.tokens.current
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        if self._credentials is not None:
            await self._credentials.aclose()

    # -- work without a gateway

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """A registration token or an installation id, see `fanout_fcm.address`. Raises `AddressInvalid`."""
        return parse_address(raw)

    fits = staticmethod(fitting(LIMIT, "fanout", *RESERVED, times=3))
    """See `Transport`. The payload holds an action three times, two of them quoted as a text in JSON, and all else less
    often."""

    def prepare(self, notification: Notification) -> FcmMessage:
        """The message, encoded once. Raises `MessageTooLarge` or `InvalidMessage`."""
        overrides = notification.override(self._context.binding, "fcm")
        return encode(notification, overrides, validate_only=self._settings.validate_only)

    # -- sending

    def capacity(self, group: str) -> int:
        """The number of requests that the connections take at once as they stand, and no more than the rate lets
        through in a second.

        The second bound keeps sends from queueing here for their turn, where no lane overtakes another.
        """
        if self._pool is None:
            return 1
        connections = self._pool.capacity()
        return connections if self._shaper is None else max(1, min(connections, int(self._shaper.rate)))

    def stats(self) -> dict[str, int]:
        """The pool's figures of its connections; empty before it is open."""
        return self._pool.figures() if self._pool is not None else {}

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Send once. An access token that is refused is replaced, and the message sent a second time.

        Google's name of an accepted message is not kept: nothing could be asked with it.
        """
        assert isinstance(message, FcmMessage)
        begun, shaper = self._monotonic(), self._shaper
        wait = 0.0 if shaper is None else shaper.take(begun, _LONGEST_TURN)
        if wait:
            wait = await self._turn(wait, begun)
        if wait < 0:
            return Throttled(-wait, Scope.RATE, "rate_per_minute of this binding", named=False)
        if wait:
            await asyncio.sleep(wait)
        try:
            token = await self._adopt(self._current())
        except TokenError as error:
            return _without_token(error)
        return await self._send_with(token, message, delivery, begun)

    def start(self, run: Run) -> Sequence[int]:
        """Send a run over the connections as they stand; a delivery that has to wait, for a token or its turn too, is
        for `send`."""
        message, token, pool, begun = run.message, self._token, self._pool, self._monotonic()
        assert isinstance(message, FcmMessage)
        if pool is None or token is None or begun >= token.renew_at:
            return range(len(run))
        shaper, count = self._shaper, len(run)
        allowed = count if shaper is None else next((n for n in range(count) if shaper.take(begun, 0.0)), count)
        each = zip(run.kinds[:allowed], run.addresses[:allowed], strict=True)
        bodies = [message.body(kind, address, run.ttl) for kind, address in each]
        requests = Requests(self._head, [self._path] * allowed, b"", [b""] * allowed, bodies)
        answers = RunAnswers(run, lambda n, response: self._judged(response, run.delivery(n), token), _unanswered)
        return [*pool.start(answers, requests, run.fresh), *range(allowed, count)]

    async def _turn(self, wait: float, begun: float) -> float:
        """The seconds to wait, where a larger part of the project's rate may be granted before they are over; negative
        for too long."""
        portion = self._portion
        assert portion is not None
        more = portion.short()
        while wait < 0 and more and (left := begun + _LONGEST_TURN - self._monotonic()) > 0:
            await portion.granted(left)
            now = self._monotonic()
            wait = portion.shaper.take(now, max(0.0, begun + _LONGEST_TURN - now))
            more = portion.short()
        return wait

    async def _send_with(self, token: Token, message: FcmMessage, delivery: Delivery, begun: float) -> Outcome:
        """Send, where some of the time is gone already, and a second time where the token is refused."""
        again = False
        while True:
            past = self._monotonic() - begun
            patience = self._settings.request_timeout / 2 - past
            ttl = delivery.ttl - math.ceil(past - 0.01) if delivery.ttl else 0
            if patience <= 0 or (delivery.ttl and ttl <= 0):
                return Deferred("no time left after waiting")
            body = message.body(delivery.kind, delivery.address, ttl)
            try:
                response = await self._request(
                    self._head, self._path, b"", body, fresh=delivery.fresh, patience=patience
                )
            except RequestFailed as failed:
                return _unanswered(failed)
            if response.status == 200:
                return ACCEPTED
            if (outcome := self._judged(response, delivery, None if again else token)) is not None:
                return outcome
            try:
                token, again = await self._adopt(None, refused=token), True
            except TokenError as error:
                return _without_token(error)

    def _judged(self, response: Response, delivery: Delivery, token: Token | None) -> Outcome | None:
        """The outcome of an answer other than 200; None where `token` is refused, unless it is None: the second
        already.

        The others wait for the next token, too.
        """
        outcome = of_answer(self._parsed(response, delivery.attempt))
        if isinstance(outcome, Reauthenticate):
            if token is None:
                return outcome.outcome
            self._token = None if self._token is token else self._token
            return None
        if isinstance(outcome, Misconfigured) and outcome.scope is Scope.GROUP and not delivery.group:
            if self._relays.agree(delivery.endpoint):
                return Moved(Address(delivery.address, delivery.kind, RELAYED), outcome.reason)
            return Misconfigured(outcome.reason, Scope.ENDPOINT)
        return outcome

    def ways(self) -> dict[str, str]:
        """By which way Google and its token endpoint are reached."""
        places = map(place_of_url, (self._settings.gateway, self._settings.token_endpoint))
        return {host: way_to(self._settings.egress(host, port)) for host, port in places}

    def woke(self) -> None:
        """See `Transport`: nothing is sent over a connection from before the machine was suspended."""
        if self._pool is not None:
            self._pool.retire()
        if self._credentials is not None:
            self._credentials.retire()

    async def check(self) -> Diagnosis:
        """Fetch a token, and have Google check a message that is not delivered."""
        if self._pool is None:
            raise RuntimeError(_CLOSED)
        named = False
        try:
            token = await self._adopt(None)
            response = await self._request(self._head, self._path, b"", PROBE)
            if response.status == 401:  # it may have been revoked since it was fetched
                await self._adopt(None, refused=token)
                response = await self._request(self._head, self._path, b"", PROBE)
        except TokenError as error:
            return of_token(error, self._settings)
        except RequestFailed as failed:
            outcome: Outcome = of_failure(failed.sent, failed.reason, **failed.evidence)
        else:
            named = b'"name"' in response.body
            made = of_answer(self._parsed(response, 1))
            outcome = made.outcome if isinstance(made, Reauthenticate) else made
        return of_probe(outcome, named, self._settings, self._pool.stats.last_trouble)

    # -- inside

    def _parsed(self, response: Response, attempt: int) -> Answer:
        after = None
        # Decoding headers costs more than all the rest of an answer.
        if response.status == 429 or response.status >= 500:
            fields = dict(response.headers())
            after = parse_retry_after(fields.get("retry-after"), self._context.clock.now(), fields.get("date"))
        return Answer.parse(response.status, response.body, after=after, attempt=attempt)

    async def _adopt(self, token: Token | None, *, refused: Token | None = None) -> Token:
        """Send with this token from now on, or with one that is fetched: another than `refused`. Raises
        `TokenError`."""
        if token is None:
            assert self._credentials is not None
            tokens = self._credentials.tokens
            token = await (tokens.get() if refused is None else tokens.renew(refused))
        if token is not self._token:
            self._token = token
            assert self._pool is not None
            # In the head, so that it enters the gateway's header table: a token of Google's has a kilobyte, and no
            # party that could guess at it controls other content of this connection (RFC 7541, section 7.1).
            fields = [("content-type", "application/json"), ("authorization", f"Bearer {token.text}")]
            if self._credentials is not None and self._credentials.quota_project:
                fields.append(("x-goog-user-project", self._credentials.quota_project))
            self._head = Head("POST", "https", self._pool.authority, fields)
        return token


_CLOSED = "The FCM transport is not open: enter it with `async with` before sending."


def _not_open(*_: object, **__: object) -> Any:
    raise RuntimeError(_CLOSED)


def _unanswered(failed: RequestFailed) -> Outcome:
    return of_failure(failed.sent, failed.reason, **failed.evidence)


def _without_token(error: TokenError) -> Outcome:
    """Nothing was sent, nothing is lost: the binding waits until there is a token again."""
    if error.own:
        return Deferred(str(error))
    if error.kind == "misconfigured":
        return Misconfigured(str(error), Scope.BINDING, named=False)
    return Unavailable("no", Scope.BINDING, str(error), 1.0 if error.after is None else error.after, named=False)
