"""Everything that a plugin imports: the two contracts, the descriptors that entry points name, and the values that pass through.

A transport's modules import this module and nothing else of `fanout` (its `simulator.py` also `fanout.testing`). An entry point
of the group `fanout.transports` or `fanout.storage` names a descriptor, which must be cheap to import: what is heavy is named by
a "module:attribute" text and imported when first needed.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

from fanout.core.address import Address
from fanout.core.delivery import Delivery, Message
from fanout.core.duration import parse_retry_after
from fanout.core.model import LANES, Action, Endpoint, EndpointState, Notification, Registration, Target
from fanout.core.outcome import (
    ACCEPTED,
    Accepted,
    Gone,
    Misconfigured,
    Moved,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.core.policy import Policy, Retention
from fanout.core.records import (
    AddressMoved,
    Chunk,
    EndpointFilter,
    EndpointGone,
    EndpointRow,
    Event,
    Put,
    Release,
    RetryRow,
    Settled,
    Settlement,
    Status,
    Stored,
    Submission,
)
from fanout.core.secret import KeyPair, Secret
from fanout.core.states import DOUBT, FINAL_STATES, RETRY, DeliveryState, NotificationState, Waiting
from fanout.errors import (
    AddressInvalid,
    ConfigurationError,
    InvalidMessage,
    MessageTooLarge,
    StorageError,
    StorageFull,
    StorageRefused,
)

if TYPE_CHECKING:
    from fanout.http import (
        Fetched,
        GuardedResolver,
        GuardedUrl,
        H2Pool,
        Head,
        HostGuard,
        HostRefused,
        Http1Client,
        Http1Settings,
        NotPublic,
        PoolSettings,
        PoolStats,
        RequestFailed,
        Resolver,
        Response,
        Token,
        TokenError,
        TokenSource,
        client_tls,
        fetch_token,
        literal,
    )

__all__ = [
    "ACCEPTED",
    "API",
    "DOUBT",
    "FINAL_STATES",
    "LANES",
    "RETRY",
    "Accepted",
    "Action",
    "Address",
    "AddressInvalid",
    "AddressMoved",
    "Chunk",
    "Clock",
    "ConfigurationError",
    "Context",
    "Delivery",
    "DeliveryState",
    "Diagnosis",
    "Endpoint",
    "EndpointFilter",
    "EndpointGone",
    "EndpointRow",
    "EndpointState",
    "Event",
    "Fetched",
    "Gone",
    "GuardedResolver",
    "GuardedUrl",
    "H2Pool",
    "Head",
    "HostGuard",
    "HostRefused",
    "Http1Client",
    "Http1Settings",
    "InvalidMessage",
    "KeyPair",
    "Message",
    "MessageTooLarge",
    "Misconfigured",
    "Moved",
    "NotPublic",
    "Notification",
    "NotificationState",
    "Outcome",
    "Policy",
    "PoolSettings",
    "PoolStats",
    "Put",
    "Registration",
    "Rejected",
    "Release",
    "RequestFailed",
    "Resolver",
    "Response",
    "Retention",
    "RetryRow",
    "Scope",
    "Secret",
    "Settled",
    "Settlement",
    "Status",
    "Storage",
    "StorageContext",
    "StorageError",
    "StorageFull",
    "StoragePlugin",
    "StorageRefused",
    "Stored",
    "Submission",
    "Target",
    "Throttled",
    "Token",
    "TokenError",
    "TokenSource",
    "Transport",
    "TransportPlugin",
    "Unavailable",
    "Waiting",
    "client_tls",
    "fetch_token",
    "literal",
    "parse_retry_after",
]

_HTTP = (
    "Fetched",
    "GuardedResolver",
    "GuardedUrl",
    "H2Pool",
    "Head",
    "HostGuard",
    "HostRefused",
    "Http1Client",
    "Http1Settings",
    "NotPublic",
    "PoolSettings",
    "PoolStats",
    "RequestFailed",
    "Resolver",
    "Response",
    "Token",
    "TokenError",
    "TokenSource",
    "client_tls",
    "fetch_token",
    "literal",
)


def __getattr__(name: str) -> Any:
    """The HTTP client is imported when a transport first asks for it: descriptors import this module too."""
    if name in _HTTP:
        http = import_module("fanout.http")
        globals().update({known: getattr(http, known) for known in _HTTP})
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


API = 1
"""The level of the contracts in this module. A descriptor states the level that it was written for."""


class Clock(Protocol):
    """Where the shell gets its time from; tests hand in their own."""

    def now(self) -> float:
        """UNIX seconds: what is stored, sent and compared with other machines' times."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: deadlines and durations."""
        ...


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `check` found. `problem` is empty when all is well, else one sentence that says what to change."""

    problem: str = ""
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a transport is given besides its settings. It draws time and chance from here and nowhere else."""

    app: str
    binding: str
    clock: Clock
    rng: random.Random
    policy: Policy = field(default_factory=Policy)


class Transport(Protocol):
    """One gateway, for one binding. Opened and closed as an async context manager; closing twice is harmless.

    The engine calls `parse_address` and `prepare` in processes that never send, so neither may need a connection or a
    credential, and neither may block. `send` is called concurrently, up to `capacity` at a time per group.
    """

    async def __aenter__(self) -> Self:
        """Get ready. No connection is made yet: a process that only submits opens its transports too."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Close every connection and end every task. Pending sends resolve."""
        ...

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """The canonical form of what the platform hands the client. Raises `AddressInvalid`, without the address in its text."""
        ...

    def prepare(self, notification: Notification) -> Message:
        """The notification encoded once for all endpoints. Pure. Raises `MessageTooLarge` or `InvalidMessage`."""
        ...

    def capacity(self, group: str) -> int:
        """How many sends of this group may be under way at once, as its connections stand now; at least 1."""
        ...

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Try once, and return what came of it within the request deadline. Cancelling it harms no other send."""
        ...

    async def check(self) -> Diagnosis:
        """Prove the credentials without pushing to a user."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportPlugin:
    """What an entry point of the group `fanout.transports` names.

    `settings` is a frozen dataclass: each field is a key of the binding's table, a field of type `Secret` may also be given as
    NAME_file or through the environment. `factory` makes the transport from (settings, context): a callable or
    "module:attribute". `extra` is what to install for it (`pip install 'fanout-push[EXTRA]'`). `simulator` makes a stand-in for
    the gateway ("module:attribute" of a class with the interface of `fanout.testing.simulator.Simulator`), or is None.
    `keys` are the credentials that need no provider to be made, by the word that `fanout keys` knows them under. `browser` serves
    a page on loopback that subscribes the user's own browser, for a transport whose `keys` have one kind: called with
    (engine, application_server_key=…, binding=…, user=…, port=…), an async context manager of something with a `url`.
    """

    name: str
    settings: type
    factory: str | Callable[[Any, Context], Transport]
    api: int = API
    extra: str = ""
    simulator: str | Callable[..., Any] | None = None
    keys: Mapping[str, str | Callable[[], KeyPair]] = field(default_factory=dict)
    browser: str | Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageContext:
    """What a storage backend is given besides its location.

    `chunk` is how many deliveries a chunk holds at most. `retention` says what `prune` may delete.
    """

    clock: Clock
    retention: Retention = field(default_factory=Retention)
    chunk: int = 1000


class Storage(Protocol):
    """Directory and queue of one database, so that acceptance is one transaction.

    Every method is one transaction: done as a whole when it returns, or not at all. Concurrent calls may be committed together.
    Methods raise `StorageFull` when there is no room, `StorageError` for any other failure of the database; the opening raises
    `StorageRefused` for a database that cannot be used. Times are UNIX seconds and come from the caller.
    """

    shared: bool
    """Whether several processes can use this database at once."""

    location: str
    """Where it is, for people: a path or a URL without a password."""

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

    async def restore_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """Make gone, removed or expired ones active again where their address is not in use; how many were."""
        ...

    async def count_endpoints(self, app: str, target: Target) -> dict[str, int]:
        """Active endpoints per binding that `target` names at this moment."""
        ...

    async def resolve(self, ids: array[int]) -> list[EndpointRow]:
        """The rows of these endpoints, whatever their state, in any order; ids that do not exist are left out."""
        ...

    # -- queue: submit and put

    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        """Store all of them in one commit, or none: if any is refused or conflicts, nothing is stored and the list says which.

        An immediate `user`, `users`, `endpoints` or `addresses` target becomes chunks now. A topic or `all`, and anything due
        later, becomes an expansion per binding; its cursor stops at the highest endpoint id of acceptance (of the due time,
        when later). A notification with the same app, collapse key and target that is unfinished is superseded.
        """
        ...

    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        """Turn expansions due at `now` into chunks until `ahead` unleased ones wait for this binding; how many were made."""
        ...

    # -- queue: lease and settle

    async def lease(
        self, worker: str, app: str, binding: str, lane: int, *, limit: int, now: float, until: float
    ) -> list[Chunk]:
        """Due chunks of the lane that nobody holds, oldest due first, until `limit` deliveries are exceeded.

        Due retry rows are gathered into chunks first. A chunk whose lease has run out is taken over: next epoch, its doubtful
        deliveries ended as (dead, unknown).
        """
        ...

    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        """For each lane, whether something could be leased or expanded now; and when next something will be, if later."""
        ...

    async def extend(self, leases: Sequence[tuple[int, int]], until: float) -> list[int]:
        """Extend the (chunk, epoch) leases; the chunks whose lease is no longer of that epoch."""
        ...

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """Store what leases learned, each fenced by its epoch, all in one commit. Order is kept."""
        ...

    async def notification(self, id: str) -> Stored | None:
        """The notification's content and envelope, or None."""
        ...

    async def stopped(self, ids: Sequence[str]) -> dict[str, str]:
        """Of these notifications, the cancelled and superseded ones, with which of the two."""
        ...

    async def finished(self, ids: Sequence[str]) -> set[str]:
        """Of these notifications, those that are finished, cancelled or unknown."""
        ...

    # -- queue: watch and manage

    async def status(self, id: str) -> Status | None:
        """How things stand, or None for an unknown id."""
        ...

    async def cancel(self, app: str, id: str, now: float) -> int:
        """Stop it: deliveries that nobody holds are cancelled now; how many chunks are still leased. Raises `NotFound`."""
        ...

    async def deliveries(
        self, id: str, *, state: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str, str]]:
        """(endpoint id, state or ``"pending"``, reason) with endpoint ids above `after`, by endpoint id."""
        ...

    async def outstanding(self, app: str | None = None) -> dict[str, int]:
        """Deliveries of unfinished notifications by what they wait for (`Waiting` words, and ``"leased"``), over all bindings.

        Unexpanded topics and broadcasts count as one each, under ``"ready"`` (or ``"scheduled"`` where not yet due).
        """
        ...

    async def changes(self) -> int:
        """A number that differs after another process (or this one) committed. Cheap enough to ask every 50 ms."""
        ...

    async def events(self, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events with an id above `after`, oldest first."""
        ...

    # -- janitor

    async def expire(self, now: float, *, limit: int) -> int:
        """End, as expired, waiting deliveries of notifications past their time, and endpoints past theirs; how many."""
        ...

    async def prune(self, now: float, *, limit: int) -> int:
        """Delete up to `limit` rows that their retention no longer covers; how many. 0 means there is nothing left to do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePlugin:
    """What an entry point of the group `fanout.storage` names. `name` is the scheme before the colon of `storage = "…"`.

    `factory` makes the storage from (location after the scheme's colon, context): a callable or "module:attribute".
    """

    name: str
    factory: str | Callable[[str, StorageContext], Storage]
    api: int = API
    extra: str = ""
