"""The result of a blocking `send`."""

from __future__ import annotations

from dataclasses import dataclass, field

from fanout.core.records import Status
from fanout.sync.background import Background

__all__ = ["Receipt"]


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
    _engine: Background = field(repr=False, compare=False)

    def wait(self, timeout: float | None = None) -> Status:
        """Wait until every delivery has ended.

        Args:
            timeout: Seconds to wait; None for no limit.

        Returns:
            The final status.

        Raises:
            TimeoutError: Deliveries are left after `timeout` seconds. Nothing is cancelled.
            NotFound: The history of the notification has been deleted (`[retention] notifications`).
            EngineClosed: The engine is closed, or was closed meanwhile.
            UsageError: An event loop runs in this thread.
            StorageError: The database cannot be read, or the engine has failed.

        Example:
            ```python
            status = receipt.wait(10)
            ```
        """
        return self._engine._call(self._engine._use().wait(self.id, timeout))

    def status(self) -> Status:
        """The state at present.

        Returns:
            The state.

        Raises:
            NotFound: The history of the notification has been deleted (`[retention] notifications`).
            EngineClosed: The engine is closed.
            UsageError: An event loop runs in this thread.
            StorageError: The database cannot be read.

        Example:
            ```python
            print(receipt.status().state)
            ```
        """
        return self._engine._call(self._engine._use().status(self.id))

    def cancel(self) -> Status:
        """Stop the deliveries that have not been sent.

        Returns:
            The status: from now on only a push in flight can still arrive.

        Raises:
            NotFound: The history of the notification has been deleted (`[retention] notifications`).
            EngineClosed: The engine is closed.
            UsageError: An event loop runs in this thread.
            StorageError: The request is not stored.

        Example:
            ```python
            receipt.cancel()
            ```
        """
        return self._engine._call(self._engine._use().cancel(self.id))
