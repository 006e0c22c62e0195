"""The kit's own transport: the production HTTP/2 pool, one per host, and a response table of a screen.

It speaks to hosts by name, one group each, as Web Push does: so that one host's trouble can be seen to stay its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import orjson

from fanout.plugin import (
    ACCEPTED,
    Address,
    AddressInvalid,
    Context,
    Delivery,
    Diagnosis,
    Gone,
    H2Pool,
    Head,
    Message,
    Misconfigured,
    Notification,
    Outcome,
    PoolSettings,
    Rejected,
    RequestFailed,
    Response,
    Scope,
    Throttled,
    Unavailable,
    literal,
    unanswered,
)

__all__ = ["PushTransport"]


class _Push(Message):
    __slots__ = ("fields", "payload")

    def __init__(self, payload: bytes, fields: bytes) -> None:
        super().__init__(len(payload))
        self.payload = payload
        self.fields = fields


class PushTransport:
    """One binding over several hosts. An address is `host/device`; `padding` makes payloads so many bytes longer."""

    def __init__(self, context: Context, settings: PoolSettings, *, padding: int = 0) -> None:
        self._context = context
        self._settings = settings
        self._padding = "x" * padding
        self._pools: dict[str, H2Pool] = {}
        self._heads: dict[str, Head] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """Raises `AddressInvalid`."""
        host, slash, device = raw.partition("/") if isinstance(raw, str) else ("", "", "")
        if not (host and slash and device.isalnum()):
            raise AddressInvalid("A simulated address is host/device.")
        return Address(f"{host}/{device}", group=host)

    def prepare(self, notification: Notification) -> _Push:
        """The payload and the one header that differs between notifications."""
        payload = orjson.dumps(
            {"fanout": {"id": notification.id}, "title": notification.title, "padding": self._padding}
        )
        return _Push(payload, literal("apns-expiration", str(int(notification.expires_at))))

    def capacity(self, group: str) -> int:
        """The requests that the host's connections take at once."""
        pool = self._pools.get(group)
        return 1 if pool is None else pool.capacity()

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Send once."""
        assert isinstance(message, _Push)
        host, _, device = delivery.address.partition("/")
        pool = self._pools.get(host)
        if pool is None:
            pool = await self._open(host)
        fields = message.fields + literal("apns-id", delivery.id)
        try:
            response = await pool.request(self._heads[host], b"/3/device/" + device.encode(), fields, message.payload)
        except RequestFailed as failed:
            return unanswered(failed.sent, failed.reason, **failed.evidence)
        return ACCEPTED if response.status == 200 else _outcome(response)

    async def _open(self, host: str) -> H2Pool:
        pool = self._pools[host] = H2Pool(
            f"http://{host}",
            ssl_context=None,
            settings=self._settings,
            clock=self._context.clock.monotonic,
            rng=self._context.rng,
        )
        self._heads[host] = Head("POST", "http", pool.authority, [])
        await pool.__aenter__()
        return pool

    async def check(self) -> Diagnosis:
        """Nothing to prove."""
        return Diagnosis(detail="simulated")


def _outcome(response: Response) -> Outcome:
    content = orjson.loads(response.body) if response.body else {}
    told = response.header("retry-after")
    return _TABLE[response.status](content.get("reason", ""), content, None if told is None else float(told))


def _bad(reason: str, content: Mapping[str, Any], after: float | None) -> Outcome:
    return Gone(reason, certain=False) if reason == "BadDeviceToken" else Rejected(reason)


def _gone(reason: str, content: Mapping[str, Any], after: float | None) -> Outcome:
    return Gone(reason, content["timestamp"] / 1000)


def _credential(reason: str, content: Mapping[str, Any], after: float | None) -> Outcome:
    return Misconfigured(reason)


def _throttled(reason: str, content: Mapping[str, Any], after: float | None) -> Outcome:
    return Throttled(after, Scope.GROUP if reason == "TooManyInGroup" else Scope.ENDPOINT, reason)


def _failed(reason: str, content: Mapping[str, Any], after: float | None) -> Outcome:
    return Unavailable("no" if reason == "Shutdown" else "unknown", Scope.ENDPOINT, reason, after)


_TABLE: dict[int, Callable[[str, Mapping[str, Any], float | None], Outcome]] = {
    400: _bad,
    403: _credential,
    410: _gone,
    429: _throttled,
    500: _failed,
    503: _failed,
}
