"""Credentials and names that are kept in the database: API keys, signers' keys and host names, made and revoked at run
time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fanout.core.roles import Role

__all__ = ["MOST_GRANTS", "Grant", "GrantKind"]

GrantKind: TypeAlias = Literal["caller", "signer", "host"]

MOST_GRANTS = 1000
"""Grants of one app. Every process reads all of them every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A caller's key, a signer's key, or a host name, of one app. Times are UNIX seconds.

    `id` is the key's public id, or the host name; it stands once in a database, for all apps together. `proof` is the
    value that checks a credential, and does not let a reader make one: of a caller's key its SHA-256, of a signer's its
    public key, of a host name nothing.
    """

    id: str
    app: str
    kind: GrantKind
    proof: str = field(default="", repr=False)
    name: str = ""
    role: Role = "app"
    expires_at: float | None = None
    made_at: float = 0.0
    used_at: float | None = None
