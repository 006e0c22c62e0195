"""The part of a storage that every one has: the directory of endpoints."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from fanout.core.address import Address
from fanout.core.audit import Audit
from fanout.core.model import Endpoint, Registration, Target
from fanout.core.records import EndpointFilter, EndpointRow

__all__ = ["DirectoryPart"]


class DirectoryPart(Protocol):
    """Endpoints of one database, by app and binding. Every method is one transaction, as in `Storage`."""

    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        """Enter each, in order, and return the endpoints in the same order.

        A known (app, binding, address digest) of the same user is refreshed: same id, next generation, active again, with the
        new address text, tags, platform and expiry. Of another user (or interned): the old endpoint becomes `replaced` (event
        `endpoint.replaced`) and a new id is made.

        Args:
            registrations: The registrations, in order.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def intern(self, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
        """Ids for explicit addresses, in order: the known active endpoint's, else a new one without a user.

        Args:
            app: The app.
            binding: The binding's name.
            addresses: The addresses, in the form that `Transport.parse_address` returns.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def list_endpoints(self, which: EndpointFilter, *, after: int = 0, limit: int = 1000) -> list[Endpoint]:
        """Endpoints with an id above `after`, by id. Interned ones are listed only when `which.user` is ``""``.

        Args:
            limit: The most entries that one call handles or returns.
        """
        ...

    async def get_endpoint(self, app: str, endpoint: int) -> Endpoint | None:
        """One endpoint in whatever state, or None.

        Args:
            app: The app.
            endpoint: The endpoint's id.
        """
        ...

    async def remove_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """Mark active (or gone) ones removed, with an event each; how many there were.

        Args:
            app: The app.
            ids: The endpoints' ids; those of other apps are passed over.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def restore_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """Make gone, removed or expired ones active again where their address is not in use; how many were.

        Args:
            app: The app.
            ids: The endpoints' ids; those of other apps are passed over.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def count_endpoints(self, app: str, target: Target) -> dict[str, int]:
        """Active endpoints per binding that `target` names at this moment.

        Args:
            app: The app.
        """
        ...

    async def resolve(self, ids: array[int], now: float) -> list[EndpointRow]:
        """The rows of these endpoints, whatever their state, in any order; ids that do not exist are left out.

        `held_until` is the latest due time of the endpoint's retry rows that hold it (`RetryRow.holds`) and are due after `now`.

        Args:
            ids: The endpoints' ids.
        """
        ...

    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        """Forget a user at once, everywhere; how many endpoints there were. The empty text is no user: 0.

        Endpoints in whatever state lose address, user, tags and platform and end as `removed`, so that what is queued for them is cancelled. Each gets an
        event `endpoint.removed` with the reason ``erased`` and the user ``""``. The row that is left has
        ``Address("")``, `state_at` `now` and that reason; it cannot be restored, and the address registered again is a
        new endpoint. So do endpoints that are nobody's or were replaced and have one of these addresses, without an
        event.

        A notification that is addressed to this user alone (by name, by endpoints that are all this user's, or to a list of which nobody else had
        an endpoint) is cancelled, and keeps its counts and no more: its content is ``{}``, its collapse key and its
        idempotency key are free. Notifications in the inbox are cancelled likewise. Of a list that names others too,
        and of what is still to look it up, the name goes. Earlier events lose the user (and the device), which are
        ``""`` then. No byte of the user's id, addresses and texts is left in a file of the database once this returns,
        as far as the backend has a say in that.

        Args:
            app: The app.
            audit: The line for the audit log that this writes in the same commit; None writes none.
        """
        ...

    async def addressed(
        self, app: str, user: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[str], int | None]:
        """Ids of notifications that are addressed to this user, alone or with others, by name or by an endpoint of the user's; in order of acceptance.

        At most `limit` are looked at, from the position `after` on. The position from which to go on comes with them, None at the end: a part may have
        no id and not be the last. A topic and `all` name no user. Of a list the names need not be kept: then those count who have a delivery.

        Args:
            app: The app.
            user: The user's name, as the app gives it.
        """
        ...
