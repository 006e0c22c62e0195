"""A transport without a gateway: each send is answered at once by a function of the test."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import orjson

from fanout.plugin import (
    ACCEPTED,
    Address,
    AddressInvalid,
    Context,
    Delivery,
    Diagnosis,
    InvalidMessage,
    Message,
    MessageTooLarge,
    Notification,
    Outcome,
    TransportPlugin,
)

__all__ = ["Script", "ScriptedMessage", "ScriptedSettings", "ScriptedTransport", "Sent", "plugin"]

_ADDRESS = re.compile(r"(?:([a-z0-9.-]{1,64})/)?[a-z0-9._:@-]{1,128}")


class ScriptedMessage(Message):
    """The notification itself, and its JSON content as the payload."""

    __slots__ = ("notification", "payload")

    def __init__(self, notification: Notification, payload: bytes) -> None:
        super().__init__(len(payload))
        self.notification = notification
        self.payload = payload


class Sent(NamedTuple):
    """One call of `send`, as it was made. `address` is in the clear: a made-up address."""

    notification: str
    delivery: str
    endpoint: int
    address: str
    attempt: int
    ttl: int


Script = Callable[[ScriptedMessage, Delivery], "Outcome | Awaitable[Outcome]"]
"""The result of a send: an outcome, or an awaitable of one (to hold a send open until the test lets go). It may also
raise."""


def _accept(message: ScriptedMessage, delivery: Delivery) -> Outcome:
    return ACCEPTED


@dataclass(frozen=True, slots=True)
class ScriptedSettings:
    """The settings of a scripted binding: how large a payload may be, and how many sends a group takes at once."""

    limit: int = 4096
    capacity: int = 1000


class ScriptedTransport:
    """Answers by a script, at once, and remembers every call in `sends`.

    An address is a lower-case name such as `alice-phone`, or `group/name` for a group of its own. `diagnosis` is the
    answer of `check`. `opened` and `closed` count; sends before opening or after closing are refused with
    `RuntimeError`.

    Args:
        script: The function that answers a send; by default every send is accepted.
        capacity: The number of sends that a group takes at once, unless `capacities` has another for it.
        limit: The size of a payload at most, in bytes.
        record: Whether calls are remembered in `sends`.
    """

    def __init__(
        self, script: Script = _accept, *, capacity: int = 1000, limit: int = 4096, record: bool = True
    ) -> None:
        self.script = script
        self.limit = limit
        self.record = record
        self.sends: list[Sent] = []
        self.calls = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.opened = 0
        self.closed = 0
        self.diagnosis = Diagnosis(detail="scripted")
        self.capacities: dict[str, int] = {}
        self._capacity = capacity

    async def __aenter__(self) -> Self:
        self.opened += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.closed += 1

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """The address of a name.

        Args:
            raw: A lower-case name, or `group/name`.

        Returns:
            The address.

        Raises:
            AddressInvalid: It is anything else.
        """
        text = raw.strip().lower() if isinstance(raw, str) else ""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise AddressInvalid("A scripted address is a lower-case name such as alice-phone, or group/name.")
        return Address(text, group=found.group(1) or "")

    def prepare(self, notification: Notification) -> ScriptedMessage:
        """The content as JSON.

        Args:
            notification: The notification, as it was accepted.

        Returns:
            The message.

        Raises:
            MessageTooLarge: It is over the limit.
            InvalidMessage: JSON cannot hold it.
        """
        content: dict[str, Any] = {name: getattr(notification, name) for name in ("id", "title", "body")}
        content["data"] = dict(notification.data)
        try:
            payload = orjson.dumps(content)
        except TypeError as error:
            raise InvalidMessage(f"data must be plain JSON: {error}.") from None
        if len(payload) > self.limit:
            raise MessageTooLarge(
                f"The payload has {len(payload)} bytes; a scripted binding takes {self.limit}. Shorten the text or the data.",
                size=len(payload),
                limit=self.limit,
            )
        return ScriptedMessage(notification, payload)

    def capacity(self, group: str) -> int:
        """The number of sends that a group takes at once.

        Args:
            group: The group, the part of the address before the slash.

        Returns:
            The group's number in `capacities`, else the number given at the start.
        """
        return self.capacities.get(group, self._capacity)

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Ask the script.

        Args:
            message: The value that `prepare` made.
            delivery: The one attempt: address, ids and remaining TTL (seconds).

        Returns:
            The script's outcome.

        Raises:
            RuntimeError: The transport is not open.
        """
        if self.opened <= self.closed:
            raise RuntimeError("The scripted transport is not open: enter it with `async with` first.")
        assert isinstance(message, ScriptedMessage)
        self.calls += 1
        if self.record:
            whom = (delivery.id, delivery.endpoint, delivery.address)
            self.sends.append(Sent(message.notification.id, *whom, delivery.attempt, delivery.ttl))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            outcome = self.script(message, delivery)
            return await outcome if isinstance(outcome, Awaitable) else outcome
        finally:
            self.in_flight -= 1

    async def check(self) -> Diagnosis:
        """The diagnosis that the test has set.

        Returns:
            `diagnosis`.
        """
        return self.diagnosis


@dataclass(slots=True)
class _Factory:
    made: list[ScriptedTransport] = field(default_factory=list)

    def __call__(self, settings: ScriptedSettings, context: Context) -> ScriptedTransport:
        transport = ScriptedTransport(capacity=settings.capacity, limit=settings.limit)
        self.made.append(transport)
        return transport


def plugin(name: str = "scripted") -> TransportPlugin:
    """A descriptor that makes scripted transports, for tests of configuration; `plugin().factory.made` lists them."""
    return TransportPlugin(name=name, settings=ScriptedSettings, factory=_Factory())
