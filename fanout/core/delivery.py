"""The arguments of one attempt, as a transport receives them."""

from __future__ import annotations

from collections.abc import Callable

from fanout.core.address import Address
from fanout.core.text import cleaned

__all__ = ["Delivery", "Message"]


class Message:
    """A notification encoded once for one binding. Transports derive from it; the engine reads nothing but `size` and
    `topic`.

    `size` is the payload's length in bytes, as the gateway counts it. `topic` is the topic that an outcome of the scope
    topic speaks of: messages of another topic go on; empty where a binding has but one.
    """

    __slots__ = ("size", "topic")

    def __init__(self, size: int, topic: str = "") -> None:
        self.size = size
        # The name of a gate, which is stored.
        self.topic = topic if topic.isascii() and "\x00" not in topic else cleaned(topic)


class Delivery:
    """One notification for one endpoint, at one attempt.

    `id` is the delivery id, the same over retries and restarts. `endpoint` is the endpoint's id; `address`, `kind` and
    `group` are the endpoint's (`address` is the canonical text that `parse_address` made). `attempt` counts from 1.
    `ttl` is the remaining time, in whole seconds rounded down (0: now or never). `registered_at` is when the endpoint
    was last registered (UNIX seconds). `fresh` asks for a new connection, or for one that answered a request within the
    last second: its outcome decides about others, or may not be tried again.
    """

    __slots__ = ("_id", "address", "attempt", "endpoint", "fresh", "group", "kind", "registered_at", "ttl")

    def __init__(
        self,
        id: str | Callable[[int], str],
        endpoint: int,
        address: str,
        kind: str,
        group: str,
        attempt: int,
        ttl: int,
        registered_at: float,
        fresh: bool = False,
    ) -> None:
        self._id = id
        self.endpoint = endpoint
        self.address = address
        self.kind = kind
        self.group = group
        self.attempt = attempt
        self.ttl = ttl
        self.registered_at = registered_at
        self.fresh = fresh

    @property
    def id(self) -> str:
        """The delivery id. Made from the endpoint's at the first use: hashing it costs a gateway that takes none too
        much."""
        made = self._id
        if not isinstance(made, str):
            made = self._id = made(self.endpoint)
        return made

    @classmethod
    def of(
        cls,
        address: Address,
        *,
        id: str = "00000000-0000-5000-8000-000000000000",
        endpoint: int = 1,
        attempt: int = 1,
        ttl: int = 3600,
        registered_at: float = 0.0,
        fresh: bool = False,
    ) -> Delivery:
        """A delivery made by hand: for tests of a transport, and for its `check`.

        Args:
            address: The device address, as `parse_address` makes it.
            id: The delivery id, a UUID.
            endpoint: The endpoint's id.
            attempt: The number of the attempt, from 1.
            ttl: The remaining time to live, in seconds.
            registered_at: The time of registration, in UNIX seconds.
            fresh: Whether a new connection must be used.

        Returns:
            The delivery.
        """
        return cls(id, endpoint, address.value, address.kind, address.group, attempt, ttl, registered_at, fresh)

    def __repr__(self) -> str:
        return f"Delivery(id={self.id!r}, endpoint={self.endpoint}, attempt={self.attempt}, ttl={self.ttl})"
