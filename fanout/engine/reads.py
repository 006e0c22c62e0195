"""The part of storage that the service, the shell and the metrics use: reads by name, and the facets of feed and
access."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from fanout.core.endpoint import Endpoint
from fanout.core.fleet import WorkerNote
from fanout.core.records import Backlog, Control, EndpointFilter, Event
from fanout.engine import listing
from fanout.plugin import (
    Access,
    Clock,
    Feed,
    Storage,
    Transport,
    access_of,
    clock_of,
    feed_of,
    fleet_of,
    has_part,
)
from fanout.plugin.storage import Part

__all__ = ["Reads"]


class Reads:
    """An engine's, as `Engine.reads`. No method needs the engine to be open; each raises `StorageError` as storage
    does."""

    __slots__ = ("_check", "_storage", "_transports")

    def __init__(
        self, storage: Storage, transports: Mapping[tuple[str, str], Transport], check: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._transports = transports
        self._check = check

    # -- the database

    @property
    def location(self) -> str:
        """Its address, without a password."""
        return self._storage.location

    @property
    def shared(self) -> bool:
        """Whether other processes can use it."""
        return self._storage.shared

    @property
    def incarnation(self) -> int:
        """A number that grows when the connections lead to another database than before."""
        return int(getattr(self._storage, "incarnation", 0))

    def clock(self, machine: Clock) -> Clock:
        """The database's clock where it has one, else the `machine`'s."""
        return clock_of(self._storage, machine)

    async def probe(self) -> None:
        """Commit something that changes nothing. Raises `StorageError` where no commit is possible."""
        await self._storage.probe()

    async def changes(self) -> int:
        """A number that is another after any commit."""
        return await self._storage.changes()

    # -- facets

    def has(self, part: Part) -> bool:
        """Whether storage has that optional part."""
        return has_part(self._storage, part)

    @property
    def feed(self) -> Feed:
        """The feed: items, subscriptions, counts. Raises `PartAbsent`."""
        return feed_of(self._storage)

    @property
    def access(self) -> Access:
        """Keys and host names that are kept in the database. Raises `PartAbsent`."""
        return access_of(self._storage)

    # -- pages

    async def events(self, *, after: int, limit: int, audit: bool = False) -> list[Event]:
        """A page of the event log, or of the audit log, after that cursor."""
        return await self._storage.events(after=after, limit=limit, audit=audit)

    def audit_lines(self, app: str | None, kind: str, since: float) -> AsyncIterator[Event]:
        """Lines of the audit log: of an app (None: of all), of a kind that begins so, from a time on (UNIX seconds)."""
        return listing.lines(self._storage, self._check, app, kind, since)

    async def endpoints(self, which: EndpointFilter, *, after: int, limit: int) -> list[Endpoint]:
        """A page of the directory, by id."""
        return await self._storage.list_endpoints(which, after=after, limit=limit)

    async def deliveries(self, id: str, *, state: str | None, after: int, limit: int) -> Sequence[tuple[int, str, str]]:
        """A page of a notification's deliveries, by endpoint id: (endpoint id, state, reason)."""
        return await self._storage.deliveries(id, state=state, after=after, limit=limit)

    async def shortened(self, id: str) -> list[str]:
        """The bindings whose gateway takes the notification with less text only."""
        return await listing.shortened(self._storage, self._transports, id)

    # -- figures

    async def controls(self) -> Mapping[tuple[str, str], Control]:
        """The requests of operators for bindings, by (app, binding)."""
        return await self._storage.controls()

    async def outstanding(self, app: str | None = None) -> Mapping[str, int]:
        """Deliveries that have not ended, by their reason for waiting."""
        return await self._storage.outstanding(app)

    async def backlog(self, app: str) -> Backlog:
        """The app's accepted work that has not ended."""
        return await self._storage.backlog(app)

    async def workers(self, now: float) -> list[WorkerNote]:
        """The workers of the database at `now` (UNIX seconds), those whose heartbeat has run out among them. Raises
        `PartAbsent`."""
        return await fleet_of(self._storage).workers(now)
