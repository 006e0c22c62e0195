"""The contract of an inbox: notifications that come with other people's transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from fanout.core.records import Put, Submission, Taken

__all__ = ["Inbox"]


class Inbox(Protocol):
    """Where a program puts notifications in a transaction of its own, and workers put them where they belong once it
    has committed.

    Notifications in it are known to `Storage.status`, `finished`, `outstanding` and `cancel` like those that were put;
    before the commit, and after a rollback, none is. A notification whose key turned out to be an earlier one's answers
    with that one's status.
    """

    pending: bool
    """Whether `Storage.changes` has found something here, for any app, since the engine set this to False."""

    async def enqueue(self, connection: object, submission: Submission, now: float) -> Put:
        """Enter a notification in the transaction of `connection`, with one statement and no lock that another
        transaction waits for.

        The answer has no total. Explicit addresses are interned first, in a transaction of the storage's own. An error
        of the connection's driver passes through.

        Args:
            connection: The caller's connection, with an open transaction.
            submission: The notification with its target and content.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The answer; `replayed` says that the idempotency key was known to this transaction.

        Raises:
            UsageError: The connection cannot be used.
            Conflict: The idempotency key was used before, for another request.
        """
        ...

    async def due(self, apps: Sequence[str], now: float) -> bool:
        """Whether there may be something to take for these apps. Every worker asks while something is `pending`: it
        reads next to nothing.

        Args:
            apps: The apps whose notifications the caller takes.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            Whether there may be.
        """
        ...

    async def take(
        self,
        apps: Sequence[str],
        judge: Callable[[Submission], tuple[Submission, Mapping[str, str]]],
        now: float,
        *,
        limit: int,
    ) -> list[Taken]:
        """Put notifications that no other worker is taking just now, oldest first, and take them out, in one
        transaction.

        One that `judge` refuses (`UsageError`), that `put` refuses, conflicts with or fails on is taken out too: its
        status is then ``cancelled`` with nothing to deliver and the reason, and the event `notification.refused` (data:
        notification, reason) is logged. So are those that no worker took until their time was over.

        Args:
            apps: The apps whose notifications are taken.
            judge: The function that adds the verdicts of transports on a submission (`Submission.refused`), and for
                each binding that refuses it the reason.
            now: The present time, in UNIX seconds by the storage's clock.
            limit: The number of notifications that are taken at most.

        Returns:
            The result of each.
        """
        ...
