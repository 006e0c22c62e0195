"""WNS over HTTP/1.1: the calls of one binding to its channels."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Mapping
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
            raise AddressInvalid("A WNS address is the channel's URL, as PushNotificationChannel.Uri gives it.")
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
        entry = self._guard.entry(channel.host, channel.port) if self._guard.named and not gateway else None
        if entry is not None and entry.ca_file is not None:
            client = self._clients[entry.ca_file]
        asked = "X-WNS-RequestForStatus" in message.headers  # then the answer has more to say
        begun = self._monotonic()
        token = tokens.current()
        tried: Token | None = None
        while True:
            if token is None:
                found = await self._token(tokens, tried, self._patience(begun))
                if not isinstance(found, Token):
                    return found
                token = found
            headers = dict(message.headers if delivery.ttl > 0 else message.now_or_never)
            headers["Authorization"] = f"Bearer {token.text}"
            headers["X-WNS-TTL"] = str(delivery.ttl)
            headers["MS-CV"] = _correlation(delivery)
            url = channel.url
            if gateway:
                headers["Host"] = channel.authority
                url = f"{gateway}{channel.target}"
            try:
                response = await client.request(
                    "POST", url, headers, message.body, fresh=delivery.fresh, patience=self._patience(begun)
                )
            except RequestFailed as failed:
                return of_failure(failed)
            if response.status == 401 and tried is None:
                tried, token = token, None
                continue
            if response.status == 200 and not asked and response.header("X-WNS-Status") == "received":
                return ACCEPTED
            answer = read(response, self._context.clock.now())
            if answer.status == 405 and not self._complained:
                self._complained = True
                _log.error("%s/%s: WNS answers 405 to POST; something between changes requests.", *self._names())
            return of_answer(answer)

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


def _correlation(delivery: Delivery) -> str:
    """`MS-CV`: a base of 128 bits in 22 characters of base64, which is the delivery id, and the attempt behind a
    dot."""
    base = b64encode(bytes.fromhex(delivery.id.replace("-", ""))).decode()
    return f"{base[:22]}.{delivery.attempt}"
