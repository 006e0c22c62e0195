"""The audit log: which acts on an installation leave a line, and the text of the line. Pure.

A line is an event of the kind `audit.…` in the event log, written by the transaction of the act itself. It names the
caller (`by`), and a user by a keyed hash alone, so that the line of an erasure keeps no id of the erased user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from fanout.errors import UsageError

__all__ = ["AUDIT", "AUDITED", "Audit", "is_audit", "person"]

AUDIT = "audit."
"""How the kind of every line of the audit log begins, and of no other event."""

AUDITED: Mapping[str, str] = MappingProxyType(
    {
        "audit.user.erased": "a user was erased",
        "audit.user.exported": "all that is held of a user was read",
        "audit.notification.cancelled": "a notification was cancelled",
        "audit.notification.paused": "a notification was paused",
        "audit.notification.resumed": "a notification's pause was lifted",
        "audit.binding.paused": "a binding was paused",
        "audit.binding.resumed": "a binding's pause was lifted, or it was asked to try again",
        "audit.binding.changed": "a process sends with changed settings, or a replaced credential, of a binding",
        "audit.config.taken": "a process took a changed configuration into use",
        "audit.config.refused": "a process refused a changed configuration",
        "audit.key.made": "an API key was made",
        "audit.key.revoked": "an API key was revoked",
        "audit.host.added": "a host name was given to an app",
        "audit.host.removed": "a host name was taken from an app",
    }
)
"""Every kind of line, and its text. Actions of users on their own devices and feeds are not audited, and neither is
sending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One line to be written. `by` is the caller: ``library``, ``shell``, ``config``, or `key:`, `app:` or `user:` and
    an id that is no secret.

    `user` is the user that it concerns, in clear: storage writes `person` of it, and never the id. `data` holds the
    other values of the line: no user's id, no address and no secret belongs there. Raises `UsageError` for a kind that
    `AUDITED` does not have.
    """

    kind: str
    by: str = "library"
    user: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in AUDITED:
            raise UsageError(f"{self.kind!r} is no kind of the audit log: it is one of {', '.join(AUDITED)}.")

    def line(self, secret: bytes, app: str) -> dict[str, Any]:
        """The data of the event.

        Args:
            secret: The installation's secret, 1 to 64 bytes, by which the user is hashed.
            app: The app that the line belongs to.

        Returns:
            The caller, the hash of the user where there is one, and `data`.
        """
        about = {"person": person(secret, app, self.user)} if self.user else {}
        return {"by": self.by, **about, **self.data}


def is_audit(kind: str) -> bool:
    """Whether an event of that kind is a line of the audit log."""
    return kind.startswith(AUDIT)


def person(secret: bytes, app: str, user: str) -> str:
    """32 hexadecimal digits that stand for this user of this app in the audit log of the installation with that secret
    (1 to 64 bytes)."""
    data = f"{len(app)}:{app}{user}".encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=16, key=secret, person=b"fanout-audit").hexdigest()
