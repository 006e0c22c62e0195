"""The author of a request, once that is proved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fanout.core.frozen import fast_init
from fanout.core.roles import Role

__all__ = ["SCOPE", "Caller"]

SCOPE = "Notifications.ReadWrite.CreatedByApp"
"""The permission that a user grants to a client that handles notifications in her name: Microsoft Graph's permission of
that name."""


@fast_init
@dataclass(frozen=True, slots=True)
class Caller:
    """One authenticated caller. It may see and change the data of `app`, and none of any other app.

    `kind` says on whose behalf it calls:

    - `delegated`: on behalf of `user`, which is never None then, and with one of the scopes that the configuration asks
      for;
    - `app`: the app itself, by an issuer's token; `user` is None;
    - `key`: the app itself, by an API key or a client's certificate; `user` is None.

    `client_id` is the OAuth client's id; for an API key or a user token the id of the key, for a certificate its
    SHA-256. `scopes` are those that the token grants.
    """

    app: str
    user: str | None
    client_id: str
    scopes: frozenset[str]
    kind: Literal["delegated", "app", "key"]
    role: Role = "app"
    """The role of the app's credential; of no meaning for a user."""
    ends_at: float | None = field(default=None, compare=False)
    """When the credential ends by its own word, in UNIX seconds; None where it has no end. The clocks' difference is
    not added."""

    @property
    def is_app(self) -> bool:
        """Whether it acts as the app itself, not on behalf of one user."""
        return self.user is None
