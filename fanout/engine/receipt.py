"""The result of `send`: the promise that the notification is stored, and the handle to follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fanout.core.frozen import fast_init
from fanout.core.records import Status

__all__ = ["Receipt"]


class _Follows(Protocol):
    async def wait(self, id: str, timeout: float | None = None) -> Status: ...

    async def status(self, id: str) -> Status: ...

    async def cancel(self, id: str) -> Status: ...


@fast_init
@dataclass(frozen=True, slots=True)
class Receipt:
    """A notification that was accepted durably.

    Attributes:
        id: The notification's id; the earlier one's where `replayed`.
        total: The number of its deliveries; None while a topic or broadcast is still to expand or the due time to come.
        replayed: Whether the idempotency key was known, so that nothing new was stored.
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
            NotFound: The history of the notification has been deleted (`[retention] notifications`).
            EngineClosed: The engine is not open, or was closed meanwhile.
            StorageError: The database cannot be read, or the engine has failed.

        Example:
            ```python
            status = await receipt.wait(10)
            ```
        """
        return await self._engine.wait(self.id, timeout)

    async def status(self) -> Status:
        """The state at present: counts of deliveries by state and by reason for waiting.

        Returns:
            The state.

        Raises:
            NotFound: The history of the notification has been deleted (`[retention] notifications`).
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            print((await receipt.status()).state)
            ```
        """
        return await self._engine.status(self.id)

    async def cancel(self) -> Status:
        """Stop the deliveries that have not been sent.

        Returns:
            The status, once every worker has confirmed or its lease has ended: only a push in flight can still arrive.

        Raises:
            NotFound: The history of the notification has been deleted (`[retention] notifications`).
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The request is not stored.

        Example:
            ```python
            await receipt.cancel()
            ```
        """
        return await self._engine.cancel(self.id)
