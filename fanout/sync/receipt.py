"""The result of a blocking `send`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanout.core.records import Status
from fanout.sync.background import Background

if TYPE_CHECKING:
    from fanout import engine as asynchronous

__all__ = ["Receipt"]


class Receipt:
    """A notification that was accepted durably: made by an `engine` of the asynchronous `receipt`."""

    __slots__ = ("_engine", "_receipt")

    def __init__(self, engine: Background, receipt: asynchronous.Receipt) -> None:
        self._engine = engine
        self._receipt = receipt

    @property
    def id(self) -> str:
        """The notification's id."""
        return self._receipt.id

    @property
    def total(self) -> int | None:
        """The number of deliveries; None while a topic or broadcast is still to expand."""
        return self._receipt.total

    @property
    def replayed(self) -> bool:
        """Whether the idempotency key was known, so that `id` is the earlier notification's."""
        return self._receipt.replayed

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

    def __repr__(self) -> str:
        return f"Receipt(id={self.id!r}, total={self.total}, replayed={self.replayed})"
