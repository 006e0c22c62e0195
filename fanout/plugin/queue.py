"""The part of a storage that every one has: the queue, from a submission to the result of each delivery."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from fanout.core.records import Chunk, Expired, LeaseRequest, Put, Settled, Settlement, Stored, Submission

__all__ = ["PutAndLease", "QueuePart"]


class QueuePart(Protocol):
    """Notifications and their deliveries. Every method is one transaction, as in `Storage`.

    A storage may also have the methods of `PutAndLease`.
    """

    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        """Store all of them in one commit, or none: if any is refused or conflicts, nothing is stored and the results
        say which.

        An immediate `user`, `users`, `endpoints` or `addresses` target becomes chunks now. A topic or `all`, and
        anything due later, becomes an expansion per binding; its cursor stops at the highest endpoint id of acceptance
        (of the due time, when later). Of a target of more than four chunks on a binding, the first four are due and
        `expand` makes the rest due in turns, so that others of the lane get theirs; the total is known all the same,
        and the state is ``running``. A notification with the same app, collapse key and target that is unfinished is
        superseded.

        Args:
            submissions: The notifications, each with its target and content.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The result of each, in their order.
        """
        ...

    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        """Turn expansions due at `now` into chunks until enough wait in each lane.

        Notifications take turns, a chunk each, in the order of their due times and, of one due time, in that in which
        they began. The chunks that `put` held back take turns like any other's and, like them, are due from `now`.
        Nothing of a paused notification is expanded, and its waiting chunks are not in the way; of a paused binding
        nothing at all is, and no schedule is begun by expanding it.

        Args:
            app: The app.
            binding: The binding's name.
            now: The present time, in UNIX seconds by the storage's clock.
            ahead: The number of chunks without a lease that are to wait in each lane.

        Returns:
            The number of chunks that were made due.
        """
        ...

    async def lease(
        self, worker: str, app: str, binding: str, lane: int, *, limit: int, now: float, until: float
    ) -> list[Chunk]:
        """Lease due chunks of a lane without a lease, oldest due first.

        Due retry rows are gathered into chunks first. Nothing of a paused binding or notification is leased.

        A chunk whose lease has run out is taken over: a later epoch, its doubtful deliveries ended as (dead, unknown),
        and the crash is counted (`core.poison.after_crash` decides). Of a chunk at its second crash `part` says how
        many deliveries may be sent together, each such group marked first (`Settlement.marks`); marked deliveries of a
        chunk that is taken over move to a chunk of their own with half that part, and one that was marked alone at its
        third crash ends as (dead, poison). A delivery that moves is due at `now`, at the same attempt, and is leased by
        a later call; a leased one is unmarked. Of a stopped notification everything is ended instead.

        Args:
            worker: The name of the worker, another for each run of a process.
            app: The app.
            binding: The binding's name.
            lane: The lane's number in `LANES`.
            limit: The number of deliveries; the chunk that exceeds it is the last.
            now: The present time, in UNIX seconds by the storage's clock.
            until: The end of the lease, in UNIX seconds by the storage's clock.

        Returns:
            The chunks.
        """
        ...

    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        """The chunks that could be leased or expanded.

        A paused delivery, by its notification or its binding, counts for neither.

        Args:
            app: The app.
            binding: The binding's name.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            For each lane whether there is anything now; and when next there will be, in UNIX seconds, if later (else
            None).
        """
        ...

    async def extend(self, leases: Sequence[tuple[int, int, float]]) -> list[int]:
        """Let leases run longer.

        Args:
            leases: Chunk, epoch and the end of the lease in UNIX seconds by the storage's clock, of each.

        Returns:
            The chunks whose lease is no longer of that epoch.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """Store the results of leases, each fenced by its epoch, all in one commit.

        The word ``paused`` of a release or retry is stored as ``ready``: whether something is paused is seen from the
        pause.

        Args:
            settlements: The results, one settlement for each lease.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The result of each, in their order.
        """
        ...

    async def notification(self, id: str) -> Stored | None:
        """The notification's content and envelope.

        Args:
            id: The notification's id.

        Returns:
            The notification; None for an unknown id.
        """
        ...

    async def stopped(self, ids: Sequence[str]) -> dict[str, str]:
        """Of these notifications, the cancelled, superseded and paused ones.

        One that has finished is not paused, and a stop outweighs a pause. The pause of a binding is told by `controls`.

        Args:
            ids: The notifications' ids.

        Returns:
            For each of them the word.
        """
        ...

    async def finished(self, ids: Sequence[str]) -> set[str]:
        """Of these notifications, those that are finished, cancelled or unknown.

        Args:
            ids: The notifications' ids.

        Returns:
            Their ids.
        """
        ...

    async def superseded(self, id: str, ids: array[int]) -> set[int]:
        """Of these endpoints, those that a notification accepted after `id`, of the same app and collapse key, targets
        too.

        A later notification that was cancelled or superseded itself does not count; one that has finished does. A topic
        or `all` matches by the endpoint's tags and user as they are now, and so does a user. Only active endpoints are
        answered, and none for an `id` that is unknown or has no collapse key.

        Args:
            id: The notification's id.
            ids: The endpoints' ids.

        Returns:
            The endpoints' ids.
        """
        ...

    async def expire(self, now: float, *, limit: int) -> Expired:
        """End, as expired, waiting deliveries of notifications past their time, and endpoints past theirs.

        A notification of which part of the audience was never counted gets, beside the deliveries that there are, the
        reason ``before it was expanded`` of ``expired`` with the number 0, and `Expired.unexpanded` counts it.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.
            limit: The most entries that one call handles or returns.

        Returns:
            The number that were ended.
        """
        ...

    async def retime(self, now: float, *, stepped: bool = False) -> bool:
        """The clock may have been set back: of instants of our own making no more may be left than they were made for.

        Retries, deliveries that were given back until some time, and gates (`settle`, `post_gates`) that were written
        later than `now` by more than a second are due as long after `now` as they were after they had been written.
        Wishes (due times of submissions, expiries) stay. Asked when a worker starts, and when the clock was set.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.
            stepped: Whether the caller has seen the clock being set; without it storage looks only where the entry
                that was written last is from the future.

        Returns:
            Whether there were any.
        """
        ...

    async def prune(self, now: float, *, limit: int) -> int:
        """Delete rows that their retention no longer covers.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.
            limit: The number of rows that one call deletes at most.

        Returns:
            The number of rows that were deleted; 0 means there is nothing left to do.
        """
        ...


class PutAndLease(Protocol):
    """A queue that puts and leases in one operation: an optional method of a storage, beside those of `QueuePart`."""

    async def put_and_lease(
        self, submissions: Sequence[Submission], leases: Sequence[LeaseRequest], now: float
    ) -> tuple[list[Put], list[list[Chunk]]]:
        """`put`, and then `lease` for each of `leases` in turn, in one commit: chunks of the puts may be among the
        leased ones.

        The answers are those of the calls one after another.

        Args:
            submissions: As `put` takes them.
            leases: The arguments of each `lease`.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The answers of `put` and of each `lease`.
        """
        ...
