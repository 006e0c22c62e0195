"""The result of `send`: the promise that the notification is stored, and the handle to follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fanout.core.records import Status

__all__ = ["Receipt"]


class _Follows(Protocol):
    async def wait(self, id: str, timeout: float | None = None) -> Status: ...

    async def status(self, id: str) -> Status: ...

    async def cancel(self, id: str) -> Status: ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """A notification that was accepted durably.

    `total` is its number of deliveries, None while a topic or broadcast is still to expand or the due time to come. `replayed`
    says that the idempotency key was known, and `id` is the earlier notification's.
    """

    id: str
    total: int | None
    replayed: bool
    _engine: _Follows = field(repr=False, compare=False)

    async def wait(self, timeout: float | None = None) -> Status:
        """Wait until every delivery has ended.

        Args:
            timeout: Seconds to wait; None for no limit.

        Returns:
            The final status.

        Raises:
            TimeoutError: Deliveries are left after `timeout` seconds. Nothing is cancelled.
        """
        return await self._engine.wait(self.id, timeout)

    async def status(self) -> Status:
        """The state at present: counts of deliveries by state and by reason for waiting."""
        return await self._engine.status(self.id)

    async def cancel(self) -> Status:
        """Stop the deliveries that have not been sent; the status afterwards."""
        return await self._engine.cancel(self.id)
