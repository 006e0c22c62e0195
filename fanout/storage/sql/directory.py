"""The port of registration: the questions to a driver, and the values that it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fanout.core.endpoint import Registration

__all__ = ["Entries", "Known", "Place"]

Place = tuple[int, int, str]
"""(app's number, binding's number, address digest in hexadecimal)."""

Known = tuple[int, str, int, Sequence[str]]
"""(id, user, generation, tags by which topics name it, where a driver asks for them to untag it) of an endpoint that
has, or had, an address."""


@dataclass(slots=True)
class Entries:
    """The rows to store of endpoints, and which address (binding, digest, id) is whose."""

    fresh: list[tuple[int, Registration, tuple[str, ...], str, str, Place]] = field(default_factory=list)
    """(id, registration, tags, address and identity as they are kept, place) of new ones."""
    refreshed: list[tuple[int, int, Registration, tuple[str, ...], str, str]] = field(default_factory=list)
    """(id, generation, registration, tags, address and identity as they are kept) of known ones."""
    free: list[tuple[int, str, int]] = field(default_factory=list)
    """Addresses that no endpoint held."""
    handed: list[tuple[int, str, int]] = field(default_factory=list)
    """Addresses that another user held."""
