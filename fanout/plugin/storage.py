"""The contract of a storage backend: directory and queue of one database."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from fanout.core.address import Address
from fanout.core.audit import Audit
from fanout.core.model import Endpoint, Registration, Target
from fanout.core.policy import Retention
from fanout.core.records import (
    Backlog,
    Chunk,
    Control,
    EndpointFilter,
    EndpointRow,
    Event,
    Expired,
    GateNote,
    Put,
    Settled,
    Settlement,
    Status,
    Step,
    Stored,
    Submission,
)
from fanout.plugin.access import Access
from fanout.plugin.base import API, Clock
from fanout.plugin.feed import Feed
from fanout.plugin.fleet import Fleet
from fanout.plugin.inbox import Inbox
from fanout.plugin.sealing import Sealer

__all__ = ["Storage", "StorageContext", "StoragePlugin", "clock_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageContext:
    """The context of a storage backend, besides its location.

    `chunk` is how many deliveries a chunk holds at most. `retention` says what `prune` may delete. With a `sealer`, no address and no
    hash that could be made from a guessed one may reach the database: a storage that cannot do that refuses to open (`sealed_by`).
    Without `create` a database that does not exist is not made: opening raises `StorageAbsent`, and leaves no file behind.
    """

    clock: Clock
    retention: Retention = field(default_factory=Retention)
    chunk: int = 1000
    sealer: Sealer | None = None
    create: bool = True


class Storage(Protocol):
    """Directory and queue of one database, so that acceptance is one transaction.

    Every method is one transaction: done as a whole when it returns, or not at all. Concurrent calls may be committed together.
    Methods raise `StorageFull` when there is no room, `StorageError` for any other failure of the database; the opening raises
    `StorageRefused` for a database that cannot be used. Times are UNIX seconds and come from the caller.

    `audit` is a line of the audit log, which the same transaction writes as an event of the app: `Audit.line` with a secret of 32 random bytes, which
    the database was given when it was made and keeps.

    All times that a storage compares are of one clock. Where several machines share a database, their clocks differ, and so such a
    storage has an attribute `clock` (a `Clock`): the database's own, carried on in between by the monotonic clock of
    `StorageContext.clock`. The engine goes by it, transports too, and passes times of no other (`clock_of`).
    """

    shared: bool
    """Whether several processes can use this database at once."""

    in_order: bool
    """Whether `lease` finds what an earlier `put` of this process stores although that call has not returned.

    Then the engine asks for the lease without waiting for the put, and both may be one commit.
    """

    # incarnation: int (optional)
    #   Grows whenever what stands behind `location` is found to be another database than before (a standby was promoted, a backup
    #   restored): the engine then forgets what it had learned. `remarks: list[str]` (optional): what `fanout doctor` says beside.

    # listen(heard: Callable[[], None]) -> None (optional)
    #   Called once by each engine, which asks for `changes` every 50 ms: others' commits are to be heard of, as far as the database can tell
    #   them, by calling `heard`. `changes` may then answer from memory. `hurry() -> None` (optional): somebody waits for what was committed
    #   here to be done elsewhere.

    location: str
    """Where it is, for people: a path or a URL without a password."""

    @property
    def feed(self) -> Feed:
        """Subscriptions and the feed of the same database."""
        ...

    @property
    def fleet(self) -> Fleet:
        """The workers that share the database. The engine asks it nothing where `shared` is False."""
        ...

    @property
    def access(self) -> Access:
        """Keys and host names that are made at run time."""
        ...

    @property
    def inbox(self) -> Inbox | None:
        """The inbox for notifications from other programs' transactions; None where no other program writes into the
        database."""
        ...

    async def __aenter__(self) -> Self:
        """Open, creating or migrating the schema. Raises `StorageRefused`."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Finish what was begun and close. Idempotent."""
        ...

    # -- directory

    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        """Enter each, in order, and return the endpoints in the same order.

        A known (app, binding, address digest) of the same user is refreshed: same id, next generation, active again, with the
        new address text, tags, platform and expiry. Of another user (or interned): the old endpoint becomes `replaced` (event
        `endpoint.replaced`) and a new id is made.
        """
        ...

    async def intern(self, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
        """Ids for explicit addresses, in order: the known active endpoint's, else a new one without a user."""
        ...

    async def list_endpoints(self, which: EndpointFilter, *, after: int = 0, limit: int = 1000) -> list[Endpoint]:
        """Endpoints with an id above `after`, by id. Interned ones are listed only when `which.user` is ``""``."""
        ...

    async def get_endpoint(self, app: str, endpoint: int) -> Endpoint | None:
        """One endpoint in whatever state, or None."""
        ...

    async def remove_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """Mark active (or gone) ones removed, with an event each; how many there were."""
        ...

    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        """Forget a user at once, everywhere; how many endpoints there were. The empty user is nobody: 0.

        Endpoints in whatever state lose address, user, tags and platform and end as `removed`, so that what is queued for them is cancelled. Each gets an
        event `endpoint.removed` with the reason ``erased`` and the user ``""``. The row that is left has
        ``Address("")``, `state_at` `now` and that reason; it cannot be restored, and the address registered again is a
        new endpoint. So do endpoints that are nobody's or were replaced and have one of these addresses, without an
        event.

        A notification that is addressed to this user alone (by name, by endpoints that are all this user's, or to a list of which nobody else had
        an endpoint) is cancelled, and keeps its counts and no more: its content is ``{}``, its collapse key and its
        idempotency key are free. Notifications in the inbox are cancelled likewise. Of a list that names others too,
        and of what is still to look it up, the name goes. Earlier events lose the user (and the device), which are
        ``""`` then. No byte of the user's id, addresses and texts is left in a file of the database once this returns,
        as far as the backend has a say in that.
        """
        ...

    async def addressed(
        self, app: str, user: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[str], int | None]:
        """Ids of notifications that are addressed to this user, alone or with others, by name or by an endpoint of the user's; in order of acceptance.

        At most `limit` are looked at, from the position `after` on. The position from which to go on comes with them, None at the end: a part may have
        no id and not be the last. A topic and `all` name no user. Of a list the names need not be kept: then those count who have a delivery.
        """
        ...

    async def restore_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """Make gone, removed or expired ones active again where their address is not in use; how many were."""
        ...

    async def count_endpoints(self, app: str, target: Target) -> dict[str, int]:
        """Active endpoints per binding that `target` names at this moment."""
        ...

    async def resolve(self, ids: array[int], now: float) -> list[EndpointRow]:
        """The rows of these endpoints, whatever their state, in any order; ids that do not exist are left out.

        `held_until` is the latest due time of the endpoint's retry rows that hold it (`RetryRow.holds`) and are due after `now`.
        """
        ...

    # -- queue: submit and put

    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        """Store all of them in one commit, or none: if any is refused or conflicts, nothing is stored and the list says which.

        An immediate `user`, `users`, `endpoints` or `addresses` target becomes chunks now. A topic or `all`, and anything due
        later, becomes an expansion per binding; its cursor stops at the highest endpoint id of acceptance (of the due time,
        when later). Of a target of more than four chunks on a binding, the first four are due and `expand` makes the rest due in
        turns, so that others of the lane get theirs; the total is known all the same, and the state is ``running``. A
        notification with the same app, collapse key and target that is unfinished is superseded.
        """
        ...

    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        """Turn expansions due at `now` into chunks until `ahead` unleased ones wait in each lane; how many were made due.

        Notifications take turns, a chunk each, in the order of their due times and, of one due time, in that in which they began.
        The chunks that `put` held back take turns like any other's and, like them, are due from `now`. Nothing of a paused
        notification is expanded, and what waits of it is not in the way; of a paused binding nothing at all is, and no schedule
        is begun by expanding it.
        """
        ...

    # -- queue: lease and settle

    async def lease(
        self, worker: str, app: str, binding: str, lane: int, *, limit: int, now: float, until: float
    ) -> list[Chunk]:
        """Due chunks of the lane that nobody holds, oldest due first, until `limit` deliveries are exceeded.

        Due retry rows are gathered into chunks first. Nothing of a paused binding or notification is leased.

        A chunk whose lease has run out is taken over: a later epoch, its doubtful deliveries ended as (dead, unknown), and the
        crash is counted (`core.poison.after_crash` decides). Of a chunk at its second crash `part` says how many deliveries
        may be sent together, each such group marked first (`Settlement.marks`); marked deliveries of a chunk that is taken
        over move to a chunk of their own with half that part, and one that was marked alone at its third crash ends as
        (dead, poison). A delivery that moves is due at `now`, at the same attempt, and is leased by a later call; a
        leased one is unmarked. Of a stopped notification everything is ended instead.
        """
        ...

    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        """For each lane, whether something could be leased or expanded now; and when next something will be, if later.

        A paused delivery, by its notification or its binding, counts for neither.
        """
        ...

    async def extend(self, leases: Sequence[tuple[int, int]], until: float) -> list[int]:
        """Extend the (chunk, epoch) leases; the chunks whose lease is no longer of that epoch."""
        ...

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """Store what leases learned, each fenced by its epoch, all in one commit. Order is kept.

        The word ``paused`` of a release or retry is stored as ``ready``: whether something is paused is seen from the pause.
        """
        ...

    async def notification(self, id: str) -> Stored | None:
        """The notification's content and envelope, or None."""
        ...

    async def stopped(self, ids: Sequence[str]) -> dict[str, str]:
        """Of these notifications, the cancelled, superseded and paused ones, with which of the three.

        One that has finished is not paused, and a stop outweighs a pause. The pause of a binding is told by `controls`.
        """
        ...

    async def finished(self, ids: Sequence[str]) -> set[str]:
        """Of these notifications, those that are finished, cancelled or unknown."""
        ...

    # -- queue: watch and manage

    async def superseded(self, id: str, ids: array[int]) -> set[int]:
        """Of these endpoints, those that a notification accepted after `id`, of the same app and collapse key, targets too.

        A later notification that was cancelled or superseded itself does not count; one that has finished does. A topic or
        `all` matches by the endpoint's tags and user as they are now, and so does a user. Only active endpoints are answered, and
        none for an `id` that is unknown or has no collapse key.
        """
        ...

    async def status(self, id: str, now: float) -> Status | None:
        """How things stand, or None for an unknown id.

        A delivery in a worker's hands, under a lease that runs, counts as ``ready``. One that nobody holds counts by what it waits
        for: ``paused`` before a closed gate that covers all of its binding (`gates`; of several the one until latest), that before
        its chunk's or retry's own reason; due and with nothing else in its way, or held back by `put`, it waits for its turn:
        ``lane``. A notification that is paused itself, and neither stopped nor finished, has the state ``paused``.
        """
        ...

    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        """The decisions about one delivery, oldest first; None for an unknown notification, [] where it has no such
        delivery.

        - `accepted` at `accepted_at`; where it was due later, `waiting` is ``scheduled`` and `until` the due time.
        - `queued`, attempt 1, once: when its first chunk was made. `waiting` is ``lane`` where `put` held that chunk back.
        - `leased`, with worker and attempt, for every lease in which it was open.
        - `taken over`, with the worker that was lost and the attempt, when `lease` finds that one's lease run out with the
          delivery open or in doubt, and the notification not stopped. Then `suspected`, with the attempt, where it moves to a
          chunk of its own or ends as poison.
        - `retry` for a retry row with a higher attempt than its chunk's, `held` for one with the same; `parked` for a release
          that found it open. These have reason, `waiting` and `until`, and the attempt that is to come.
        - `paused` and `resumed`, of its notification or its binding, from its acceptance until it ended, both included.
        - `ended`, with state, reason and the attempt of its chunk, last. A chunk keeps no time for each delivery: `at` is when the
          latest delivery of its chunk ended or, if that is earlier, when the chunk was next released or leased after its end.

        Several lines of one moment stand in the order in which they were stored.
        """
        ...

    async def backlog(self, app: str) -> Backlog:
        """How much has been accepted for the app and has not ended.

        An expansion to come counts as one delivery for each binding that it has, a schedule as one. `oldest_at` is the earliest due time.
        """
        ...

    async def cancel(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """Stop it: deliveries that nobody holds are cancelled now; how many chunks are still leased. Raises `NotFound`."""
        ...

    async def pause(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """Hold it: nothing more of it is leased or expanded until `resume`; how many chunks are still leased under a running lease.

        Its expiry goes on. A lease that is given back meanwhile waits as ``paused``. A stopped or finished one is left
        as it is. Idempotent. Raises `NotFound`.
        """
        ...

    async def resume(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> None:
        """Lift the pause: what was due is due again, a retry not before its time. Idempotent. Raises `NotFound`."""
        ...

    async def pause_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> int:
        """Hold everything of one binding; how many of its chunks are still leased under a running lease."""
        ...

    async def resume_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> None:
        """Lift the pause of a binding, if there is one, and do what `retry_binding` does."""
        ...

    async def retry_binding(self, app: str, binding: str, now: float) -> None:
        """An operator says that the fault that kept the binding from sending is mended: ask its workers to try again
        (`Control.nudge` grows by one).

        Chunks that nobody holds, and retry rows, that wait for a gate, breaker, quota or budget are due now; back-off is not shortened.
        """
        ...

    async def controls(self) -> dict[tuple[str, str], Control]:
        """The requests of operators for bindings, by (app, binding); bindings without any request are left out."""
        ...

    async def post_gates(self, worker: str, notes: Sequence[GateNote], now: float) -> None:
        """Make known which gates this worker has closed and opened, for `status` and `gates` of any process.

        The last note of a (app, binding, scope, name) stands, whoever posts it, until (`now` at or past) `until` and a minute more;
        then it is forgotten. The first note with `alarm` also logs the event `binding.parked` (data: binding, scope, name, waiting,
        reason, until), and the opening that follows it `binding.opened` (data: binding, scope, name); more alarms in between log
        nothing, and a note without one does not take the alarm back.
        """
        ...

    async def gates(self, now: float) -> list[GateNote]:
        """The gates that are closed, as far as workers have said, by app, binding, scope and name; `worker` is who said so."""
        ...

    async def deliveries(
        self, id: str, *, state: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str, str]]:
        """(endpoint id, state or ``"pending"``, reason) with endpoint ids above `after`, by endpoint id.

        The reason of a pending one is the word of `outstanding`, with ``ready`` for ``leased``.
        """
        ...

    async def outstanding(self, app: str | None = None) -> dict[str, int]:
        """Deliveries of unfinished notifications by what they wait for (`Waiting` words, and ``"leased"``), over all bindings.

        Unexpanded topics and broadcasts count as one each, under ``"ready"`` (or ``"scheduled"`` where not yet begun).
        A delivery that is not leased, of a paused notification or binding, counts as ``paused``, expansions too (a
        schedule belongs to no binding yet); else by the word stored with its chunk or retry, whatever the time and the
        gates, and ``lane`` where `put` held it back.
        """
        ...

    async def changes(self, *, others: bool = False) -> int:
        """A number that differs after another process (or this one) committed. Cheap enough to ask every 50 ms.

        With `others`, what was committed through this very object need not show.
        """
        ...

    async def probe(self) -> None:
        """Commit something that changes nothing, so that it is known whether commits are possible. Raises as every method does."""
        ...

    async def events(self, *, after: int = 0, limit: int = 1000, audit: bool = False) -> list[Event]:
        """Events with an id above `after`, oldest first: with `audit` the lines of the audit log (`core.audit`), else all others."""
        ...

    async def record(self, app: str, audit: Audit, now: float) -> None:
        """Write a line of the audit log about something that changes nothing here."""
        ...

    async def person(self, app: str, user: str) -> str:
        """By which the audit log knows this user (`core.audit.person`)."""
        ...

    # -- janitor

    async def expire(self, now: float, *, limit: int) -> Expired:
        """End, as expired, waiting deliveries of notifications past their time, and endpoints past theirs; how many.

        A notification of which part of the audience was never counted gets, beside the deliveries that there are, the reason
        ``before it was expanded`` of ``expired`` with the number 0, and `Expired.unexpanded` counts it.
        """
        ...

    async def retime(self, now: float, *, stepped: bool = False) -> bool:
        """The clock may have been set back: of instants of our own making no more may be left than they were made for.

        Retries, what was given back until some time, and gates (`settle`, `post_gates`) that were written later than `now` by more than a
        second are due as long after `now` as they were after they had been written; whether there were any. Wishes (due times of
        submissions, expiries) stay. `stepped`: the caller has seen the clock being set; without it storage looks only where what was
        written last is from the future. Asked when a worker starts, and when the clock was set.
        """
        ...

    async def prune(self, now: float, *, limit: int) -> int:
        """Delete up to `limit` rows that their retention no longer covers; how many. 0 means there is nothing left to do."""
        ...


def clock_of(storage: Storage, machine: Clock) -> Clock:
    """The clock that callers of this storage go by: its own (see `Storage`), or else the machine's."""
    return getattr(storage, "clock", None) or machine


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePlugin:
    """The descriptor that an entry point of the group `fanout.storage` names. `name` is the scheme before the colon of
    `storage = "…"`.

    `factory` makes the storage from (location after the scheme's colon, context): a callable or "module:attribute". `seal`, where the
    backend can, seals the addresses of a database that nobody has open, or seals them anew under the first key: an async function of
    (location, context, progress) that answers how many rows it wrote; `progress` is called with their number so far.
    """

    name: str
    factory: str | Callable[[str, StorageContext], Storage]
    api: int = API
    extra: str = ""
    seal: str | Callable[[str, StorageContext, Callable[[int], None]], Awaitable[int]] | None = None
