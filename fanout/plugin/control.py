"""The part of a storage that every one has: the views and commands of operators, and the logs of events and of
audits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fanout.core.audit import Audit
from fanout.core.records import Backlog, Control, Event, GateNote, Status, Step

__all__ = ["ControlPart"]


class ControlPart(Protocol):
    """The state of notifications, the commands that stop them, and the log of events. Every method is one transaction,
    as in `Storage`."""

    async def status(self, id: str, now: float) -> Status | None:
        """The state of a notification.

        A delivery in a worker's hands, under a lease that runs, counts as ``ready``. One without a lease counts by
        the word of its wait: ``paused`` before a closed gate that covers all of its binding (`gates`; of several the
        one until latest), that before its chunk's or retry's own reason; due and with nothing else in its way, or held
        back by `put`, it waits for its turn: ``lane``. A notification that is paused itself, and neither stopped nor
        finished, has the state ``paused``.

        Args:
            id: The notification's id.
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The state; None for an unknown id.
        """
        ...

    async def deliveries(
        self, id: str, *, state: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str, str]]:
        """Deliveries of a notification, by endpoint id.

        The reason of a pending one is the word of `outstanding`, with ``ready`` for ``leased``.

        Args:
            id: The notification's id.
            state: The state to list, `pending` among them; None lists all.
            after: The endpoint's id that all of the answer are above.
            limit: The number of entries that one call handles or returns, at most.

        Returns:
            The endpoint's id, the state or ``"pending"``, and the reason, of each.
        """
        ...

    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        """The decisions about one delivery, oldest first.

        - `accepted` at `accepted_at`; where it was due later, `waiting` is ``scheduled`` and `until` the due time.
        - `queued`, attempt 1, once: when its first chunk was made. `waiting` is ``lane`` where `put` held that chunk
          back.
        - `leased`, with worker and attempt, for every lease in which it was open.
        - `taken over`, with the worker that was lost and the attempt, when `lease` finds that one's lease run out with
          the
          delivery open or in doubt, and the notification not stopped. Then `suspected`, with the attempt, where it
          moves to a
          chunk of its own or ends as poison.
        - `retry` for a retry row with a higher attempt than its chunk's, `held` for one with the same; `released` for a
          release
          that found it open. These have reason, `waiting` and `until`, and the attempt that is to come.
        - `paused` and `resumed`, of its notification or its binding, from its acceptance until it ended, both included.
        - `ended`, with state, reason and the attempt of its chunk, last. A chunk keeps no time for each delivery: `at`
          is when the
          latest delivery of its chunk ended or, if that is earlier, when the chunk was next released or leased after
          its end.

        Several lines of one moment stand in the order in which they were stored.

        Args:
            id: The notification's id.
            endpoint: The endpoint's id.

        Returns:
            The decisions; None for an unknown notification, [] where it has no such delivery.
        """
        ...

    async def backlog(self, app: str) -> Backlog:
        """The work that has been accepted for the app and has not ended.

        An expansion to come counts as one delivery for each binding that it has, a schedule as one. `oldest_at` is the
        earliest due time.

        Args:
            app: The app.

        Returns:
            Deliveries, bytes of content, and the due time of the oldest.
        """
        ...

    async def outstanding(self, app: str | None = None) -> dict[str, int]:
        """Deliveries of unfinished notifications by the word of their wait (`Waiting` words, and ``"leased"``), over
        all bindings.

        Unexpanded topics and broadcasts count as one each, under ``"ready"`` (or ``"scheduled"`` where not yet begun).
        A delivery that is not leased, of a paused notification or binding, counts as ``paused``, expansions too (a
        schedule belongs to no binding yet); else by the word stored with its chunk or retry, without regard to the
        time and the gates, and ``lane`` where `put` held it back.

        Args:
            app: The app; None counts all apps.

        Returns:
            The numbers of deliveries by the word of their wait.
        """
        ...

    async def cancel(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """Stop a notification: deliveries without a lease are cancelled now.

        Args:
            app: The app.
            id: The notification's id.
            now: The present time, in UNIX seconds by the storage's clock.
            audit: The line for the audit log that this writes in the same commit; None writes none.

        Returns:
            The number of its chunks that are still leased.

        Raises:
            NotFound: The app has no such notification.
        """
        ...

    async def pause(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """Hold a notification: nothing more of it is leased or expanded until `resume`. Idempotent.

        Its expiry goes on. A lease that is given back meanwhile waits as ``paused``. A stopped or finished one is left
        as it is.

        Args:
            app: The app.
            id: The notification's id.
            now: The present time, in UNIX seconds by the storage's clock.
            audit: The line for the audit log that this writes in the same commit; None writes none.

        Returns:
            The number of its chunks that are still leased under a running lease.

        Raises:
            NotFound: The app has no such notification.
        """
        ...

    async def resume(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> None:
        """Lift the pause: due deliveries are due again, a retry not before its time. Idempotent.

        Args:
            app: The app.
            id: The notification's id.
            now: The present time, in UNIX seconds by the storage's clock.
            audit: The line for the audit log that this writes in the same commit; None writes none.

        Raises:
            NotFound: The app has no such notification.
        """
        ...

    async def pause_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> int:
        """Hold everything of one binding.

        Args:
            app: The app.
            binding: The binding's name.
            now: The present time, in UNIX seconds by the storage's clock.
            audit: The line for the audit log that this writes in the same commit; None writes none.

        Returns:
            The number of its chunks that are still leased under a running lease.
        """
        ...

    async def resume_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> None:
        """Lift the pause of a binding, if there is one, and act as `retry_binding`.

        Args:
            app: The app.
            binding: The binding's name.
            now: The present time, in UNIX seconds by the storage's clock.
            audit: The line for the audit log that this writes in the same commit; None writes none.
        """
        ...

    async def retry_binding(self, app: str, binding: str, now: float) -> None:
        """An operator says that the fault that kept the binding from sending is mended: ask its workers to try again
        (`Control.nudge` grows by one).

        Chunks without a lease, and retry rows, that wait for a gate, breaker, quota or budget are due now; back-off is
        not shortened.

        Args:
            app: The app.
            binding: The binding's name.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def bring_forward(self, app: str, binding: str, before: float, now: float, *, limit: int) -> int:
        """A gate has opened: chunks without a lease, and retry rows, that wait for one (``gate``) are due now.

        A retry that holds its endpoint waits for its own word, and stays. Unlike after `retry_binding`, a gate that is
        still closed stays so too.

        Args:
            app: The app.
            binding: The binding's name.
            before: The time of giving back from which a delivery waits for a gate that has closed since, in UNIX
                seconds by the storage's clock: such a delivery stays as it is.
            now: The present time, in UNIX seconds by the storage's clock.
            limit: The number of chunks, and of retry rows, that one call moves at most.

        Returns:
            The number of chunks and retry rows that were moved; 0 means there is none left.
        """
        ...

    async def controls(self) -> dict[tuple[str, str], Control]:
        """The requests of operators for bindings, by (app, binding); bindings without any request are left out."""
        ...

    async def post_gates(self, worker: str, notes: Sequence[GateNote], now: float) -> None:
        """Make known which gates this worker has closed and opened, for `status` and `gates` of any process.

        The last note of a (app, binding, scope, name) stands, of any worker, until (`now` at or past) `until` and a
        minute more; then it is forgotten. The first note with `alarm` also logs the event `binding.parked` (data:
        binding, scope, name, waiting, reason, until), and the opening that follows it `binding.opened` (data: binding,
        scope, name); more alarms in between log nothing, and a note without one does not take the alarm back.

        Args:
            worker: The name of the worker, another for each run of a process.
            notes: The gates that closed or opened since the last call.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def gates(self, now: float) -> list[GateNote]:
        """The gates that are closed, as far as workers have said.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            The gates by app, binding, scope and name; `worker` is the one that said so.
        """
        ...

    async def events(self, *, after: int = 0, limit: int = 1000, audit: bool = False) -> list[Event]:
        """Events, oldest first.

        Args:
            after: The id that all of the answer are above: the cursor.
            limit: The number of entries that one call handles or returns, at most.
            audit: Whether the lines of the audit log (`core.audit`) are wanted, or all other events.

        Returns:
            The events.
        """
        ...

    async def record(self, app: str, audit: Audit, now: float) -> None:
        """Write a line of the audit log about something that changes nothing here.

        Args:
            app: The app.
            audit: The line.
            now: The present time, in UNIX seconds by the storage's clock.
        """
        ...

    async def person(self, app: str, user: str) -> str:
        """The name by which the audit log knows a user (`core.audit.person`).

        Args:
            app: The app.
            user: The user's name, as the app gives it.

        Returns:
            32 hexadecimal digits.
        """
        ...
