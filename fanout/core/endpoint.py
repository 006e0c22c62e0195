"""A device of the directory: its registration, and the endpoint that the registration makes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fanout.core import given
from fanout.core.address import Address
from fanout.errors import AddressInvalid, UsageError

__all__ = ["Endpoint", "EndpointState", "Registration"]

_PLATFORM_LIMIT = 64
"""Characters."""
TAGS_LIMIT = 256
"""Tags of one endpoint."""


class EndpointState(StrEnum):
    """Where an endpoint stands in the directory."""

    ACTIVE = "active"
    GONE = "gone"  # a gateway said so; kept in quarantine, from which it can be restored
    REPLACED = "replaced"  # its address was registered under another user
    REMOVED = "removed"  # the host took it out
    EXPIRED = "expired"  # its own expires_at passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One device address to be entered in the directory, already in its transport's canonical form.

    `expires_at` is UNIX seconds (a datetime with its zone is kept as such); None means until the gateway or the host
    says otherwise. Of equal tags one is kept. Raises `UsageError`, with the field's name, for a value that no storage
    could hold; `AddressInvalid` for such an address.
    """

    user: str
    binding: str
    address: Address
    app: str = "default"
    platform: str = ""
    tags: tuple[str, ...] = ()
    expires_at: float | None = None

    def __post_init__(self) -> None:
        if self.user != "":  # an endpoint interned from an explicit address has no user
            given.text("user", self.user)
        given.text("binding", self.binding)
        given.text("app", self.app)
        if self.platform != "":
            given.text("platform", self.platform, _PLATFORM_LIMIT)
        if self.tags != ():
            tags = tuple(dict.fromkeys(given.text("a tag", tag) for tag in given.collection("tags", self.tags)))
            if len(tags) > TAGS_LIMIT:
                raise UsageError(f"tags must be at most {TAGS_LIMIT}; there are {len(tags):,}.")
            object.__setattr__(self, "tags", tags)
        if self.expires_at is not None:
            object.__setattr__(self, "expires_at", given.instant("expires_at", self.expires_at))
        if not isinstance(self.address, Address) or not self.address.storable:
            raise AddressInvalid(
                "address must be one that the transport's parse_address made: not empty, without NUL, valid as UTF-8."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One device address on one binding, as the directory knows it. Times are UNIX seconds.

    Attributes:
        id: The endpoint's id.
        app, binding, platform, tags: The values with which it was registered.
        user: The user's id; empty for an endpoint interned from an explicit address: it belongs to no user, no topic
            and not to `all`.
        address: The device address: a secret.
        generation: A number that grows with each registration, so that a late verdict on an old one cannot harm the
            new.
        registered_at, expires_at: The time of the last registration, and the end of it; None for no end.
        state, state_at, reason: The state, since when it is so, and why: the gateway's word where that ended it.
    """

    id: int
    app: str
    user: str
    binding: str
    address: Address
    platform: str = ""
    tags: tuple[str, ...] = ()
    generation: int = 1
    registered_at: float = 0.0
    expires_at: float | None = None
    state: EndpointState = EndpointState.ACTIVE
    state_at: float | None = None
    reason: str = ""
