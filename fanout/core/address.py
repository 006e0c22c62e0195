"""A device address in its transport's canonical form. It is a secret: a holder of it can push to the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from fanout.core.text import storable

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """One device address.

    `value` is the canonical text that is stored and handed back to the transport. `kind` tells apart the kinds of
    address that one transport treats differently (a device and a live activity, a token and an installation id).
    `group` names the connections that the endpoint shares: empty for a binding with one gateway, the host for Web Push
    and WNS. `identity` is the part that makes the address unique; empty means all of `value`. Two registrations of one
    identity are one device.
    """

    value: str = field(repr=False)
    kind: str = ""
    group: str = ""
    identity: str = field(default="", repr=False)

    @property
    def digest(self) -> str:
        """16 bytes of BLAKE2b over the identity, in hexadecimal: the directory's key for this address."""
        return blake2b((self.identity or self.value).encode(), digest_size=16).hexdigest()

    @property
    def storable(self) -> bool:
        """Whether it has a value, and every storage can hold all of it."""
        return bool(self.value) and all(map(storable, (self.value, self.kind, self.group, self.identity)))

    def __str__(self) -> str:
        return f"<address of kind {self.kind or 'default'}, hidden>"
