"""The engine, blocking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fanout.core.model import Notification, Target
from fanout.core.records import Status, Step
from fanout.sync.background import Background
from fanout.sync.directory import Endpoints
from fanout.sync.receipt import Receipt

if TYPE_CHECKING:
    from fanout import engine as asynchronous

__all__ = ["Engine"]

_RECORDS = 50
"""Records of an export that are in memory at a time: one may be as large as a notification."""


class Engine(Background):
    """An engine that runs in a thread of its own. Every method blocks its caller until it is done, and any thread may
    call.

    Made by `fanout.sync.open` of the engine to be opened (`opening`). Every call raises `EngineClosed` once the engine
    is closed and in a process that was forked from the one that opened it, and `UsageError` where an event loop runs in
    the calling thread.
    """

    def __init__(self, opening: asynchronous.Engine) -> None:
        super().__init__(opening)
        self.endpoints = Endpoints(self)

    def send(
        self,
        notification: Notification,
        target: Target | str,
        *,
        app: str = "default",
        at: float | datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Accept a notification durably, as `fanout.Engine.send`.

        Args:
            notification: The content.
            target: The devices: `Target.user("alice")`, or its short form.
            app: The app whose devices are meant.
            at: The due time, in UNIX seconds or as a datetime with its time zone; None for now.
            idempotency_key: A text of the caller's, which makes a repeated call return the first receipt.

        Returns:
            The receipt.

        Raises:
            UsageError: The notification can never be sent; `MessageTooLarge` and `InvalidMessage` are among its kinds.
            Conflict: The idempotency key was used before, for another request.
            Backlogged: A bound of `[backlog]` is passed.
            EngineClosed: The engine is closed.
            StorageError: Nothing was stored.

        Example:
            ```python
            status = engine.send(Notification(title="Your table is ready"), "user:alice").wait(10)
            ```
        """
        inner = self._use()
        made = self._call(inner.send(notification, target, app=app, at=at, idempotency_key=idempotency_key))
        return Receipt(made.id, made.total, made.replayed, self)

    def send_many(self, batch: Iterable[tuple[Notification, Target | str]], *, app: str = "default") -> list[Receipt]:
        """Accept many notifications in one commit: all of them, or none and an exception.

        Args:
            batch: Pairs of a notification and its target, as `send` takes them.
            app: The app of all of them.

        Returns:
            A receipt for each, in their order.

        Raises:
            UsageError, Conflict, Backlogged: As in `send`, for one of them.
            EngineClosed: The engine is closed.
            StorageError: Nothing was stored.

        Example:
            ```python
            engine.send_many([(Notification(title=f"Hello {name}"), f"user:{name}") for name in ("alice", "bob")])
            ```
        """
        made = self._call(self._use().send_many(list(batch), app=app))
        return [Receipt(each.id, each.total, each.replayed, self) for each in made]

    def status(self, id: str) -> Status:
        """The state of a notification.

        Args:
            id: The notification's id.

        Returns:
            The state at present.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is closed.
            StorageError: The database cannot be read.

        Example:
            ```python
            print(engine.status(receipt.id).counts)
            ```
        """
        return self._call(self._use().status(id))

    def wait(self, id: str, timeout: float | None = None) -> Status:
        """Wait until every delivery of a notification has ended.

        Args:
            id: The notification's id.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The final status.

        Raises:
            TimeoutError: Deliveries are left after `timeout` seconds. Nothing is cancelled.
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is closed, or was closed meanwhile.
            StorageError: The database cannot be read, or the engine has failed.

        Example:
            ```python
            status = engine.wait(receipt.id, timeout=10)
            ```
        """
        return self._call(self._use().wait(id, timeout))

    def cancel(self, id: str) -> Status:
        """Stop the deliveries that have not been sent.

        Args:
            id: The notification's id.

        Returns:
            The status: from now on only a push in flight can still arrive.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is closed.
            StorageError: The request is not stored.

        Example:
            ```python
            engine.cancel(receipt.id)
            ```
        """
        return self._call(self._use().cancel(id))

    def pause(self, id: str) -> Status:
        """Send nothing more of a notification until `resume`, while its time to live runs on.

        Args:
            id: The notification's id.

        Returns:
            The status: from now on only a push in flight can still arrive.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is closed.
            StorageError: The request is not stored.

        Example:
            ```python
            engine.pause(receipt.id)
            ```
        """
        return self._call(self._use().pause(id))

    def resume(self, id: str) -> Status:
        """Let a paused notification go on.

        Args:
            id: The notification's id.

        Returns:
            The status afterwards.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is closed.
            StorageError: The request is not stored.

        Example:
            ```python
            engine.resume(receipt.id)
            ```
        """
        return self._call(self._use().resume(id))

    def pause_binding(self, binding: str, *, app: str = "default") -> None:
        """Hold all deliveries of one binding, in every process.

        Args:
            binding: The binding's name in the configuration.
            app: Its app.

        Raises:
            UsageError: The app has no such binding.
            EngineClosed: The engine is closed.
            StorageError: The request is not stored.

        Example:
            ```python
            engine.pause_binding("pigeon")
            ```
        """
        self._call(self._use().pause_binding(binding, app=app))

    def resume_binding(self, binding: str, *, app: str = "default") -> None:
        """Lift the pause of one binding, and try a closed gate again at once.

        Args:
            binding: The binding's name in the configuration.
            app: Its app.

        Raises:
            UsageError: The app has no such binding.
            EngineClosed: The engine is closed.
            StorageError: The request is not stored.

        Example:
            ```python
            engine.resume_binding("pigeon")
            ```
        """
        self._call(self._use().resume_binding(binding, app=app))

    def erase_user(self, user: str, *, app: str = "default") -> int:
        """Forget a user at once, everywhere.

        Args:
            user: The user's id, as it was registered.
            app: The user's app.

        Returns:
            The number of endpoints that there were.

        Raises:
            UsageError: `user` is empty or no text.
            EngineClosed: The engine is closed.
            StorageError: Nothing was erased.

        Example:
            ```python
            engine.erase_user("alice")
            ```
        """
        return self._call(self._use().erase_user(user, app=app))

    def export_user(self, user: str, *, app: str = "default") -> Iterator[dict[str, Any]]:
        """All data held of a user, read while it is consumed.

        Args:
            user: The user's id, as it was registered.
            app: The user's app.

        Yields:
            Records of plain JSON with a `kind`, the last of which is `end`.

        Raises:
            UsageError: `user` is empty or no text. This and the others come with the first record.
            EngineClosed: The engine is closed.
            StorageError: The database cannot be read.

        Example:
            ```python
            for record in engine.export_user("alice"):
                print(record["kind"])
            ```
        """
        return self._pages(self._use().export_user(user, app=app), _RECORDS)

    def explain(self, id: str, endpoint: int) -> Sequence[Step]:
        """The decisions about one delivery, oldest first.

        Args:
            id: The notification's id.
            endpoint: The endpoint's id.

        Returns:
            The decisions, each with its time in UNIX seconds.

        Raises:
            NotFound: There is no such notification, or it has no delivery for that endpoint.
            UsageError: `id` is no text, or `endpoint` no number.
            EngineClosed: The engine is closed.
            StorageError: The database cannot be read.

        Example:
            ```python
            for step in engine.explain(receipt.id, endpoint.id):
                print(step.at, step.what, step.reason)
            ```
        """
        return self._call(self._use().explain(id, endpoint))
