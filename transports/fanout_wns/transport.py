"""WNS over HTTP/1.1: the calls of one binding to its channels."""

from __future__ import annotations

import logging
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from fanout.plugin import (
    ACCEPTED,
    Address,
    AddressInvalid,
    ConfigurationError,
    Context,
    Delivery,
    Diagnosis,
    GuardedResolver,
    GuardedUrl,
    HostGuard,
    HostRefused,
    Http1Client,
    Http1Settings,
    Message,
    Notification,
    Outcome,
    Rejected,
    RequestFailed,
    Resolver,
    Response,
    Run,
    Token,
    TokenError,
    TokenSource,
    client_tls,
    place_of_url,
    way_to,
)
from fanout_wns.auth import Fetcher
from fanout_wns.diagnosis import diagnose
from fanout_wns.outcome import of_answer, of_failure, of_token_error, read
from fanout_wns.payload import WnsMessage, encode, fits
from fanout_wns.settings import WnsSettings

__all__ = ["WnsTransport"]

_log = logging.getLogger("fanout.wns")

_HOSTS = 16


class WnsTransport:
    """One Windows app's channels. A channel's host is its group: Microsoft has many, and each has its own
    connections."""

    def __init__(self, settings: WnsSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._guard = HostGuard(settings.allowed_hosts, allow_private=settings.allow_private)
        self._monotonic = context.clock.monotonic
        self._client: Http1Client | None = None
        self._clients: dict[Path, Http1Client] = {}  # of hosts with an authority of their own
        self._token_client: Http1Client | None = None
        self._tokens: TokenSource | None = None
        self._refused: Token | None = None
        """The token that WNS did not know in a run."""
        self._complained = False

    def __repr__(self) -> str:
        return f"<WnsTransport {self._context.app}/{self._context.binding}>"

    async def __aenter__(self) -> Self:
        settings = self._settings
        settings.client_secret.reveal()  # if it cannot be read, that is told now
        limits = Http1Settings(
            # A test server stands for all hosts, which do not share connections otherwise.
            connections=settings.connections * (_HOSTS if settings.gateway else 1),
            request_timeout=settings.request_timeout,
            connect_timeout=min(settings.connect_timeout, settings.request_timeout),
        )
        # A test server is named by the configuration and not by a client.
        resolver = None if settings.gateway else GuardedResolver(self._guard)
        self._client = self._client_for(limits, None, resolver)
        for entry in self._guard.named:
            if entry.ca_file is not None:
                self._clients[entry.ca_file] = self._client_for(limits, entry.ca_file, resolver)
        self._token_client = self._client_for(limits, None, None)
        fetch = Fetcher(settings, self._token_client, self._context.clock)
        self._tokens = TokenSource(fetch, monotonic=self._monotonic, rng=self._context.rng)
        return self

    def _client_for(self, limits: Http1Settings, own: Path | None, resolver: Resolver | None) -> Http1Client:
        """A client that trusts the binding's authority, and a host's own, besides the system's."""
        settings = self._settings
        try:
            ca_file = str(settings.ca_file) if settings.ca_file else None
            tls = client_tls(ca_file=ca_file, alpn=("http/1.1",), shared=own is None)
            if own is not None:
                tls.load_verify_locations(own)
        except OSError as error:
            raise ConfigurationError(
                f"ca_file cannot be loaded ({error.strerror or type(error).__name__}): use certificates in PEM."
            ) from None
        return Http1Client(
            ssl_context=tls, settings=limits, resolver=resolver, clock=self._monotonic, egress=settings.egress
        )

    async def __aexit__(self, *exc: object) -> None:
        tokens, clients = self._tokens, (self._client, *self._clients.values(), self._token_client)
        if tokens is not None:
            await tokens.aclose()
        for client in clients:
            if client is not None:
                await client.aclose()

    # -- without network

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """The channel URL, from itself or from `{"uri": …}`. Raises `AddressInvalid`, also for a host that is not
        WNS's."""
        text = raw.get("uri") if isinstance(raw, Mapping) else raw
        if not isinstance(text, str):
            raise AddressInvalid("A WNS address is the channel's URL: give PushNotificationChannel.Uri.")
        channel = self._guard.check(text.strip())
        if channel.target == "/":
            raise AddressInvalid("The address is a host without a channel: give all of PushNotificationChannel.Uri.")
        return Address(channel.url, group=channel.authority)

    fits = staticmethod(fits)
    """See `Transport`."""

    def prepare(self, notification: Notification) -> WnsMessage:
        """The payload and headers, encoded once. Raises `MessageTooLarge` or `InvalidMessage`."""
        overrides = notification.override(self._context.binding, "wns")
        return encode(notification, overrides, request_for_status=self._settings.request_for_status)

    def capacity(self, group: str) -> int:
        """The connections that a host may have: each carries one request at a time."""
        return self._settings.connections

    # -- sending

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Send once; with another token a second time if WNS does not know the first."""
        assert isinstance(message, WnsMessage)
        client, tokens, gateway = self._client, self._tokens, self._settings.gateway
        if client is None or tokens is None:
            raise RuntimeError("The WNS transport is not open: enter it with `async with` before sending.")
        try:
            channel = self._guard.check(delivery.address)
        except HostRefused as refused:
            return Rejected(f"address refused ({refused.reason})")
        client = self._client_of(client, channel)
        begun = self._monotonic()
        token = tokens.current()
        tried: Token | None = None
        if token is self._refused:
            tried, token = token, None
        while True:
            if token is None:
                found = await self._token(tokens, tried, self._patience(begun))
                if not isinstance(found, Token):
                    return found
                token = found
            headers = self._headers(message, token, delivery.ttl, channel)
            headers["MS-CV"] = _correlation(delivery.id, delivery.attempt)
            url = f"{gateway or channel.origin}{channel.target}"
            try:
                response = await client.request(
                    "POST", url, headers, message.body, fresh=delivery.fresh, patience=self._patience(begun)
                )
            except RequestFailed as failed:
                return of_failure(failed)
            if response.status == 401 and tried is None:
                tried, token = token, None
                continue
            return self._judged(message, response)

    def start(self, run: Run) -> Sequence[int]:
        """Send a run over the host's idle connections; a delivery that has to wait, for a token too, is for `send`."""
        message, client, tokens = run.message, self._client, self._tokens
        assert isinstance(message, WnsMessage)
        token = None if tokens is None else tokens.current()
        if client is None or token is None or token is self._refused:
            return range(len(run))
        try:
            channels = [self._guard.check(address) for address in run.addresses]
        except HostRefused:
            return range(len(run))  # `send` says of each whether it is refused
        channel = channels[0]
        if any(each[:2] != channel[:2] for each in channels):
            return range(len(run))
        return self._client_of(client, channel).start(
            _Answers(run, partial(self._answer, message, token)),
            "POST",
            self._settings.gateway or channel.origin,
            [each.target for each in channels],
            self._headers(message, token, run.ttl, channel),
            ("MS-CV", [_correlation(each.decode(), run.attempt) for each in run.ids()]),
            message.body,
            fresh=run.fresh,
        )

    def ways(self) -> dict[str, str]:
        """By which way the token endpoint and the channels' hosts are reached."""
        settings = self._settings
        host, port = place_of_url(settings.token_endpoint)
        ways = {host: way_to(settings.egress(host, port))}
        if settings.gateway:
            host, port = place_of_url(settings.gateway)
            return ways | {host: way_to(settings.egress(host, port))}
        return ways | {name: way_to(settings.egress(name, 443), judged=True) for name in self._guard.names}

    def woke(self) -> None:
        """See `Transport`: nothing is sent over a connection from before the machine was suspended."""
        for client in (self._client, *self._clients.values(), self._token_client):
            if client is not None:
                client.retire()

    async def check(self) -> Diagnosis:
        """Fetch a token, whether there is one already or not: that proves the credential."""
        client = self._token_client
        if client is None:
            raise RuntimeError("The WNS transport is not open: enter it with `async with` before checking it.")
        try:
            await Fetcher(self._settings, client, self._context.clock)()
        except TokenError as error:
            return diagnose(error, self._settings)
        return diagnose(None, self._settings)

    # -- inside

    def _client_of(self, usual: Http1Client, channel: GuardedUrl) -> Http1Client:
        """The client of a channel's host, which may have an authority of its own."""
        named = self._guard.named and not self._settings.gateway
        entry = self._guard.entry(channel.host, channel.port) if named else None
        return usual if entry is None or entry.ca_file is None else self._clients[entry.ca_file]

    def _headers(self, message: WnsMessage, token: Token, ttl: int, channel: GuardedUrl) -> dict[str, str]:
        """The header fields that deliveries of a run share."""
        headers = dict(message.headers if ttl > 0 else message.now_or_never)
        headers["Authorization"] = f"Bearer {token.text}"
        headers["X-WNS-TTL"] = str(ttl)
        if self._settings.gateway:
            headers["Host"] = channel.authority
        return headers

    def _judged(self, message: WnsMessage, response: Response) -> Outcome:
        asked = "X-WNS-RequestForStatus" in message.headers  # then the answer has more to say
        if response.status == 200 and not asked and response.header("x-wns-status") == "received":
            return ACCEPTED
        answer = read(response, self._context.clock.now())
        if answer.status == 405 and not self._complained:
            self._complained = True
            _log.error("%s/%s: WNS answers 405 to POST; something between changes requests.", *self._names())
        return of_answer(answer)

    def _answer(self, message: WnsMessage, token: Token, result: Response | RequestFailed) -> Outcome | None:
        """The outcome of a delivery of a run; None where it is to be sent again, with another token."""
        if isinstance(result, RequestFailed):
            return of_failure(result)
        if result.status == 401:
            self._refused = token
            return None
        return self._judged(message, result)

    def _patience(self, begun: float) -> float:
        """For how many seconds more an attempt may wait here, for a token or a connection. WNS has the whole deadline
        after that."""
        return max(0.0, begun + self._settings.request_timeout / 2 - self._monotonic())

    async def _token(self, tokens: TokenSource, refused: Token | None, patience: float) -> Token | Outcome:
        """A token that is not `refused`, or the outcome where there is none within `patience` seconds."""
        try:
            return await (tokens.get(patience) if refused is None else tokens.renew(refused, patience))
        except TokenError as error:
            return of_token_error(error)

    def _names(self) -> tuple[str, str]:
        return self._context.app, self._context.binding


class _Answers:
    """The receiver of the answers to a run's requests."""

    def __init__(self, run: Run, judge: Callable[[Response | RequestFailed], Outcome | None]) -> None:
        self._run = run
        self._judge = judge
        self.over = run.over

    def answered(self, results: list[tuple[int, Response | RequestFailed]]) -> None:
        """See `Http1Client.start`."""
        outcomes = [(index, self._judge(result)) for index, result in results]
        self._run.accept([index for index, outcome in outcomes if outcome is ACCEPTED])
        for index, outcome in outcomes:
            if outcome is not ACCEPTED:
                self._run.answer(index, outcome)


def _correlation(delivery: str, attempt: int) -> str:
    """`MS-CV`: a base of 128 bits in 22 characters of base64, which is the delivery id, and the attempt behind a
    dot."""
    base = b2a_base64(bytes.fromhex(delivery.replace("-", "")), newline=False).decode()
    return f"{base[:22]}.{attempt}"
