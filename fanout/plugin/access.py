"""The contract of a storage's facet for the credentials of callers: keys and host names that are made at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fanout.core.access import Grant

__all__ = ["Access"]


class Access(Protocol):
    """Keys and host names of the apps: `storage.access`. Every method is one transaction, as in `Storage`.

    A change is on the disk when the call returns, and from then on every process reads it so.
    """

    async def grants(self) -> list[Grant]:
        """All grants that stand, of every app, by id. Those that have expired stand until they are revoked."""
        ...

    async def grant(self, grant: Grant, now: float, *, by: str) -> bool:
        """Enter one that has never been used. Nothing changes where one of that id stands, of any app.

        It writes the line `audit.key.made` (id, kind, name, role, expires_at) or `audit.host.added` (host) of its app.

        Args:
            grant: The API key or host name to enter.
            now: The present time, in UNIX seconds by the storage's clock.
            by: The caller for the audit log, as in `Audit`.

        Returns:
            Whether it was entered.
        """
        ...

    async def revoke(self, app: str, id: str, now: float, *, by: str) -> bool:
        """Take out the one of that id and app. It writes `audit.key.revoked` (id, kind, name) or `audit.host.removed`
        (host).

        Args:
            app: The app.
            id: The grant's id.
            now: The present time, in UNIX seconds by the storage's clock.
            by: The caller for the audit log, as in `Audit`.

        Returns:
            Whether there was one.
        """
        ...

    async def used(self, moments: Mapping[str, float]) -> None:
        """Note when grants were used; the latest time is kept. Ids that do not stand are passed over.

        It is no work: it need not show in `Storage.changes`, and a crash may undo it.

        Args:
            moments: The time of the latest use (UNIX seconds) by grant id.
        """
        ...
