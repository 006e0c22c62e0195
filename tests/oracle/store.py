"""The model itself: the contract's methods over the tables."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from secrets import randbits, token_bytes
from typing import Self

from fanout.core.address import Address
from fanout.core.audit import Audit, is_audit, person
from fanout.core.endpoint import Endpoint, Registration
from fanout.core.model import Target
from fanout.core.records import (
    Backlog,
    Chunk,
    Control,
    EndpointFilter,
    EndpointRow,
    Event,
    Expired,
    GateNote,
    LeaseRequest,
    Put,
    Settled,
    Settlement,
    Status,
    Step,
    Stored,
    Submission,
)
from fanout.errors import NotFound
from fanout.plugin import StorageContext
from tests.oracle import (
    directory,
    erasing,
    explain,
    exporting,
    gates,
    intake,
    janitor,
    pause,
    queue,
    retiming,
    settling,
    stop,
    watch,
)
from tests.oracle.access import ModelAccess
from tests.oracle.feed import ModelFeed
from tests.oracle.feed_tables import FeedTables
from tests.oracle.fleet import ModelFleet
from tests.oracle.tables import Note, Tables, write

__all__ = ["ModelStorage"]


class ModelStorage:
    """A `Storage` of dictionaries."""

    shared = False
    in_order = True
    inbox = None

    def __init__(self, location: str, context: StorageContext) -> None:
        self.location = f"model:{location}"
        self._context = context
        self._t = Tables(feed=FeedTables(identity=randbits(32)), secret=token_bytes(32))
        self.feed = ModelFeed(self._t)
        self.access = ModelAccess(self._t)
        self.fleet = ModelFleet(self._t)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    # -- directory

    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        """See `Storage`."""
        self._t.changes += 1
        return directory.register(self._t, registrations, now)

    async def intern(self, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
        """See `Storage`."""
        self._t.changes += 1
        return directory.intern(self._t, app, binding, addresses, now)

    async def list_endpoints(self, which: EndpointFilter, *, after: int = 0, limit: int = 1000) -> list[Endpoint]:
        """See `Storage`."""
        return directory.listing(self._t, which, after, limit)

    async def get_endpoint(self, app: str, endpoint: int) -> Endpoint | None:
        """See `Storage`."""
        found = self._t.directory.endpoints.get(endpoint)
        return found if found is not None and found.app == app else None

    async def remove_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """See `Storage`."""
        self._t.changes += 1
        return directory.remove(self._t, app, ids, now)

    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        self._t.changes += 1
        erased = erasing.erase(self._t, self._context, app, user, now)
        write(self._t, app, audit, now)
        return erased

    async def addressed(
        self, app: str, user: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[str], int | None]:
        """See `Storage`."""
        return exporting.addressed(self._t, app, user, after, limit)

    async def restore_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """See `Storage`."""
        self._t.changes += 1
        return directory.restore(self._t, app, ids, now)

    async def count_endpoints(self, app: str, target: Target) -> dict[str, int]:
        """See `Storage`."""
        return directory.count(self._t, app, target)

    async def resolve(self, ids: array[int], now: float) -> list[EndpointRow]:
        """See `Storage`."""
        return watch.rows(self._t, ids, now)

    # -- queue

    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        """See `Storage`."""
        self._t.changes += 1
        return intake.put(self._t, self._context, submissions, now)

    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        """See `Storage`."""
        return intake.expand(self._t, self._context, app, binding, now, ahead)

    async def lease(
        self, worker: str, app: str, binding: str, lane: int, *, limit: int, now: float, until: float
    ) -> list[Chunk]:
        """See `Storage`."""
        return queue.lease(self._t, self._context, worker, app, binding, lane, limit, now, until)

    async def put_and_lease(
        self, submissions: Sequence[Submission], leases: Sequence[LeaseRequest], now: float
    ) -> tuple[list[Put], list[list[Chunk]]]:
        """See `PutAndLease`."""
        puts = await self.put(submissions, now)
        return puts, [
            await self.lease(worker, app, binding, lane, limit=limit, now=now, until=until)
            for worker, app, binding, lane, limit, until in leases
        ]

    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        """See `Storage`."""
        return queue.waiting(self._t, app, binding, now)

    async def extend(self, leases: Sequence[tuple[int, int, float]]) -> list[int]:
        """See `Storage`."""
        return queue.extend(self._t, leases)

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """See `Storage`."""
        self._t.changes += 1
        return settling.settle(self._t, settlements, now)

    async def notification(self, id: str) -> Stored | None:
        """See `Storage`."""
        note = self._t.notes.get(id)
        return watch.stored(note) if note is not None else None

    async def stopped(self, ids: Sequence[str]) -> dict[str, str]:
        """See `Storage`."""
        notes = (self._t.notes.get(id) for id in ids)
        return {note.sub.id: note.halted for note in notes if note is not None and note.halted}

    # -- watch and manage

    async def finished(self, ids: Sequence[str]) -> set[str]:
        """See `Storage`."""
        notes = {id: self._t.notes.get(id) for id in ids}
        return {id for id, note in notes.items() if note is None or note.finished_at is not None}

    async def superseded(self, id: str, ids: array[int]) -> set[int]:
        """See `Storage`."""
        note = self._t.notes.get(id)
        return watch.superseded(self._t, note, ids) if note is not None else set()

    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        """See `Storage`."""
        note = self._t.notes.get(id)
        return explain.explain(self._t, note, endpoint) if note is not None else None

    async def backlog(self, app: str) -> Backlog:
        """See `Storage`."""
        return watch.backlog(self._t, app)

    async def status(self, id: str, now: float) -> Status | None:
        """See `Storage`."""
        note = self._t.notes.get(id)
        return watch.status(self._t, note, now) if note is not None else None

    async def cancel(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        note = self._own(app, id)
        self._t.changes += 1
        held = stop.stop(self._t, self._context, note, "cancelled", now)
        write(self._t, app, audit, now)
        return held

    def _own(self, app: str, id: str) -> Note:
        note = self._t.notes.get(id)
        if note is None or note.sub.app != app:
            raise NotFound(f"There is no notification {id} in the app {app}.")
        return note

    async def pause(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        held = pause.pause(self._t, self._own(app, id), now)
        write(self._t, app, audit, now)
        return held

    async def resume(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> None:
        """See `Storage`."""
        pause.resume(self._t, self._own(app, id), now)
        write(self._t, app, audit, now)

    async def pause_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        held = pause.pause_binding(self._t, app, binding, now)
        write(self._t, app, audit, now)
        return held

    async def resume_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> None:
        """See `Storage`."""
        pause.resume_binding(self._t, app, binding, now)
        write(self._t, app, audit, now)

    async def retry_binding(self, app: str, binding: str, now: float) -> None:
        """See `Storage`."""
        pause.retry_binding(self._t, app, binding, now)

    async def bring_forward(self, app: str, binding: str, before: float, now: float, *, limit: int) -> int:
        """See `Storage`."""
        return pause.bring_forward(self._t, app, binding, before, now, limit)

    async def controls(self) -> dict[tuple[str, str], Control]:
        """See `Storage`."""
        return dict(self._t.controls)

    async def post_gates(self, worker: str, notes: Sequence[GateNote], now: float) -> None:
        """See `Storage`."""
        gates.post(self._t, worker, notes, now)

    async def gates(self, now: float) -> list[GateNote]:
        """See `Storage`."""
        return gates.closed(self._t, now)

    async def deliveries(
        self, id: str, *, state: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str, str]]:
        """See `Storage`."""
        note: Note | None = self._t.notes.get(id)
        return watch.deliveries(self._t, note, state, after, limit) if note is not None else []

    async def outstanding(self, app: str | None = None) -> dict[str, int]:
        """See `Storage`."""
        return watch.outstanding(self._t, app)

    async def changes(self, *, others: bool = False) -> int:
        """See `Storage`."""
        return self._t.changes

    async def probe(self) -> None:
        """See `Storage`."""

    async def events(self, *, after: int = 0, limit: int = 1000, audit: bool = False) -> list[Event]:
        """See `Storage`."""
        events = self._t.events
        start = bisect_right(events, after, key=lambda event: event.id)
        return list(islice((event for event in events[start:] if is_audit(event.kind) is audit), limit))

    async def record(self, app: str, audit: Audit, now: float) -> None:
        """See `Storage`."""
        self._t.changes += 1
        write(self._t, app, audit, now)

    async def person(self, app: str, user: str) -> str:
        """See `Storage`."""
        return person(self._t.secret, app, user)

    # -- janitor

    async def expire(self, now: float, *, limit: int) -> Expired:
        """See `Storage`."""
        return janitor.expire(self._t, self._context, now, limit)

    async def retime(self, now: float, *, stepped: bool = False) -> bool:
        """See `Storage`."""
        return retiming.retime(self._t, now)

    async def prune(self, now: float, *, limit: int) -> int:
        """See `Storage`."""
        return janitor.prune(self._t, self._context, now, limit)
