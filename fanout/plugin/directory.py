"""The part of a storage that every one has: the directory of endpoints."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from fanout.core.address import Address
from fanout.core.audit import Audit
from fanout.core.endpoint import Endpoint, Registration
from fanout.core.model import Target
from fanout.core.records import EndpointFilter, EndpointRow

__all__ = ["DirectoryPart"]


class DirectoryPart(Protocol):
    """Endpoints of one database, by app and binding. Every method is one transaction, as in `Storage`."""

    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        """Enter each, in order.

        A known (app, binding, address digest) of the same user is refreshed: same id, next generation, active again,
        with the new address text, tags, platform and expiry. Of another user (or interned): the old endpoint becomes
        `replaced` (event `endpoint.replaced`) and a new id is made.

        Args:
            registrations: The registrations, in order.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The endpoints, in the same order.
        """
        ...

    async def intern(self, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
        """Ids for explicit addresses.

        Args:
            app: The app.
            binding: The binding's name.
            addresses: The addresses, in the form that `Transport.parse_address` returns.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The id of each, in order: the known active endpoint's, else a new one without a user.
        """
        ...

    async def list_endpoints(self, which: EndpointFilter, *, after: int = 0, limit: int = 1000) -> list[Endpoint]:
        """Endpoints by id. Interned ones are listed only when `which.user` is ``""``.

        Args:
            which: The filter.
            after: The id that all of the answer are above.
            limit: The number of entries that one call handles or returns, at most.

        Returns:
            The endpoints.
        """
        ...

    async def get_endpoint(self, app: str, endpoint: int) -> Endpoint | None:
        """One endpoint in any state.

        Args:
            app: The app.
            endpoint: The endpoint's id.

        Returns:
            The endpoint; None where the app has none of that id.
        """
        ...

    async def remove_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """Mark active (or gone) ones removed, with an event each.

        Args:
            app: The app.
            ids: The endpoints' ids; those of other apps are passed over.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The number that there were.
        """
        ...

    async def restore_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """Make gone, removed or expired ones active again where their address is not in use.

        Args:
            app: The app.
            ids: The endpoints' ids; those of other apps are passed over.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The number that are active again.
        """
        ...

    async def count_endpoints(self, app: str, target: Target) -> dict[str, int]:
        """Active endpoints that a target names at this moment.

        Args:
            app: The app.
            target: The target.

        Returns:
            The number for each binding that has any.
        """
        ...

    async def resolve(self, ids: array[int], now: float) -> Sequence[EndpointRow]:
        """The rows of endpoints in any state.

        `held_until` is the latest due time of the endpoint's retry rows that hold it (`RetryRow.holds`) and are due
        after `now`.

        Args:
            ids: The endpoints' ids.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The rows, in any order; ids that do not exist are left out.
        """
        ...

    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        """Forget a user at once, everywhere. The empty text is no user.

        Endpoints in any state lose address, user, tags and platform and end as `removed`, so that deliveries queued
        for them are cancelled. Each gets an event `endpoint.removed` with the reason ``erased`` and the user ``""``.
        The row that is left has ``Address("")``, `state_at` `now` and that reason; it cannot be restored, and the
        address registered again is a new endpoint. So do endpoints that are no user's or were replaced and have one of
        these addresses, without an event.

        A notification that is addressed to this user alone (by name, by endpoints that are all this user's, or to a
        list of which no other user had an endpoint) is cancelled, and keeps its counts and no more: its content is
        ``{}``, its collapse key and its idempotency key are free. Notifications in the inbox are cancelled likewise. Of
        a list that names others too, and of a notification that is still to look it up, the name goes. Earlier events
        lose the user (and the device), which are ``""`` then. No byte of the user's id, addresses and texts is left in
        a file of the database once this returns, as far as the backend has a say in that.

        Args:
            app: The app.
            user: The user's id, as it was registered.
            now: The present time, in UNIX seconds by the storage's clock.
            audit: The line for the audit log that this writes in the same commit; None writes none.

        Returns:
            The number of endpoints that there were.
        """
        ...

    async def addressed(
        self, app: str, user: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[str], int | None]:
        """Notifications that are addressed to this user, alone or with others, by name or by an endpoint of the user's.

        At most `limit` are looked at: a part may have no id and not be the last. A topic and `all` name no user. Of a
        list the names need not be kept: then those count that have a delivery for the user.

        Args:
            app: The app.
            user: The user's id, as it was registered.
            after: The number of the position from which to go on; 0 from the beginning.
            limit: The number of entries that one call handles or returns, at most.

        Returns:
            Ids in order of acceptance, and the position from which to go on; None for it at the end.
        """
        ...
