"""Tokens that have been verified, so that a busy caller does not pay for a signature each time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fanout.service.auth.caller import Caller

if TYPE_CHECKING:
    from fanout.service.auth.issuer import Issuer

__all__ = ["Verified", "VerifiedTokens", "digest_of"]

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Verified:
    """A token's caller, until when (UNIX seconds), and the key that proved it: without that key it proves nothing."""

    caller: Caller
    ends_at: float
    issuer: Issuer
    key: bytes


class VerifiedTokens:
    """At most ten thousand; the oldest goes first. Only tokens whose signature is good come in, so strangers cannot
    fill it.

    They are known by their SHA-256: the tokens themselves are not kept.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._entries: dict[bytes, Verified] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Verified | None:
        """The entry, if it has not ended."""
        found = self._entries.get(digest)
        if found is not None and now >= found.ends_at:
            del self._entries[digest]
            return None
        return found

    def put(self, digest: bytes, entry: Verified) -> None:
        """Remember a token whose signature and claims are good."""
        if digest not in self._entries and len(self._entries) >= self._most:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = entry

    def drop(self, digest: bytes) -> None:
        """Forget it: its key is not trusted any more."""
        self._entries.pop(digest, None)


def digest_of(token: str) -> bytes:
    """The key by which a token is found again."""
    return hashlib.sha256(token.encode()).digest()
