"""The contract of a storage's fourth facet: the workers that share the database, and the values that they share."""

from __future__ import annotations

from typing import Protocol

from fanout.core.fleet import SharedToken, WorkerNote

__all__ = ["Fleet"]


class Fleet(Protocol):
    """The workers of one database: `storage.fleet`. Every method is one transaction, as in `Storage`.

    A worker counts as alive until its last beat's `until` (`core.fleet.outlived` decides). Times come from the caller,
    as in `Storage`, and a storage that several machines share compares them by its own clock. Changes made by these
    methods are no work: they need not show in `Storage.changes`, but for a `bury` that makes leases due.
    """

    async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
        """A worker says that it lives, even one that was counted as dead. `seen_at`, `until` and `leases` of the note
        are not looked at.

        Args:
            worker: The worker's note.
            now: The present time, in UNIX seconds by the storage's clock.
            until: The end of the time for which it counts as alive, in UNIX seconds by the storage's clock.

        Returns:
            Whether it was known, alive or not. False: it is new, or was buried, and its leases may be another worker's.
        """
        ...

    async def leave(self, worker: str) -> None:
        """The worker ends in good order, having given back its leases: it is forgotten, with its parts of rates.
        Idempotent.

        Args:
            worker: The name of the worker, another for each run of a process.
        """
        ...

    async def workers(self, now: float) -> list[WorkerNote]:
        """Every worker that is known, with the leases it holds: also one whose heartbeat has run out, until it is
        buried.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The workers by id.
        """
        ...

    async def bury(self, now: float) -> list[str]:
        """Forget the workers whose heartbeat has run out, with their parts of rates, and make their leases due at
        `now`: they are taken over as leases that have run out (`QueuePart.lease`), crashes counted.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The ids of the buried, in order.
        """
        ...

    async def holdings(self, worker: str, now: float) -> list[tuple[int, int]]:
        """Every running lease that names this worker: also one whose lease call it never heard the answer of. Asked
        with each beat.

        Args:
            worker: The name of the worker, another for each run of a process.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            Pairs of a chunk and its epoch, in any order.
        """
        ...

    async def share(self, worker: str, name: str, *, rate: float, held: float, demand: float, now: float) -> float:
        """Ask for a part of a rate, to be used from now on while the worker counts as alive.

        At no moment is more than `rate` out: the greater of `held` and the answer counts against the others until the
        worker asks again, leaves, is buried or its heartbeat has run out. `core.fleet.grant` decides.

        Args:
            worker: The name of the worker, another for each run of a process.
            name: The name of the rate, the same in all processes.
            rate: The whole rate, such as a number of requests per second.
            held: The share that it uses until it has this answer, in the same unit.
            demand: The share that it could use, in the same unit; infinite for all there is.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The part; 0.0 where the worker does not count as alive, or nothing is left.
        """
        ...

    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        """The token that stands under a name.

        With `offer`, the offered one takes its place first where `core.fleet.supersedes` says so, so that of many
        workers that offer one at a time all get the same.

        Args:
            name: The name of the token.
            now: The present time, in UNIX seconds by the storage's clock.
            offer: A token that takes the standing one's place first where `core.fleet.supersedes` says so, so that of
                many workers that offer one at a time all get the same; None only reads.
            spacing: The least time between two tokens, in seconds, for `core.fleet.supersedes`.

        Returns:
            The token; None where there is none that is still good.
        """
        ...
