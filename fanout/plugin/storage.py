"""The contract of a storage backend: the parts that every one has, and those that it may have.

Needed are directory, queue and control (`DirectoryPart`, `QueuePart`, `ControlPart`). Optional are `feed`, `fleet`,
`access` and `inbox`, each an object of its own: a storage that has one has the attribute. Sealing is declared by the
descriptor (`StoragePlugin.seal`). Where a part that is absent would be used, one sentence says so (`PartAbsent`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isfunction, signature
from typing import Any, Literal, Protocol, Self

from fanout.core.policy import Retention
from fanout.errors import PartAbsent
from fanout.plugin.access import Access
from fanout.plugin.base import API, Clock
from fanout.plugin.control import ControlPart
from fanout.plugin.directory import DirectoryPart
from fanout.plugin.feed import Feed
from fanout.plugin.fleet import Fleet
from fanout.plugin.inbox import Inbox
from fanout.plugin.queue import QueuePart
from fanout.plugin.sealing import Sealer

__all__ = ["Storage", "StorageContext", "StoragePlugin", "access_of", "clock_of", "feed_of", "fleet_of", "has_part"]

Part = Literal["feed", "fleet", "access", "inbox"]
"""The optional parts of a storage, by the attribute that holds each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageContext:
    """The context of a storage backend, besides its location.

    `chunk` is how many deliveries a chunk holds at most. `retention` names the rows that `prune` may delete. With a
    `sealer`, no address and no hash that could be made from a guessed one may reach the database: a storage that cannot
    do that refuses to open (`sealed_by`). Without `create` a database that does not exist is not made: opening raises
    `StorageAbsent`, and leaves no file behind.
    """

    clock: Clock
    retention: Retention = field(default_factory=Retention)
    chunk: int = 1000
    sealer: Sealer | None = None
    create: bool = True


class Storage(DirectoryPart, QueuePart, ControlPart, Protocol):
    """Directory, queue and control of one database, so that acceptance is one transaction.

    Every method is one transaction: done as a whole when it returns, or not at all. Concurrent calls may be committed
    together. Methods raise `StorageFull` when there is no room, `StorageError` for any other failure of the database;
    the opening raises `StorageRefused` for a database that cannot be used. Times are UNIX seconds and come from the
    caller.

    `audit` is a line of the audit log, which the same transaction writes as an event of the app: `Audit.line` with a
    secret of 32 random bytes, which the database was given when it was made and keeps.

    All times that a storage compares are of one clock. Where several machines share a database, their clocks differ,
    and so such a storage has an attribute `clock` (a `Clock`): the database's own, carried on in between by the
    monotonic clock of `StorageContext.clock`. The engine goes by it, transports too, and passes times of no other
    (`clock_of`).
    """

    shared: bool
    """Whether several processes can use this database at once."""

    in_order: bool
    """Whether `lease` finds the rows of an earlier `put` of this process although that call has not returned.

    Then the engine asks for the lease without waiting for the put, and both may be one commit.
    """

    # incarnation: int (optional)
    #   Grows when another database than before is found behind `location` (a standby was promoted, a backup
    #   restored): the engine then forgets its knowledge of the former one. `remarks: list[str]` (optional): further
    #   lines of `fanout doctor`.

    # listen(heard: Callable[[], None]) -> None (optional)
    #   Called once by each engine, which asks for `changes` every 50 ms: others' commits are to be heard of, as far as
    # the database can tell   them, by calling `heard`. `changes` may then answer from memory. `hurry() -> None`
    # (optional): a caller waits   until another process has done its part of a commit.

    location: str
    """Where it is, for people: a path or a URL without a password."""

    @property
    def feed(self) -> Feed | None:
        """Subscriptions and the feed of the same database; None or no such attribute where it has none."""
        return None

    @property
    def fleet(self) -> Fleet | None:
        """The workers that share the database; None or no such attribute where they cannot, and `shared` is False
        then."""
        return None

    @property
    def access(self) -> Access | None:
        """Keys and host names that are made at run time; None or no such attribute where it has no place for them."""
        return None

    @property
    def inbox(self) -> Inbox | None:
        """The inbox for notifications from other programs' transactions; None or no such attribute where no other
        program writes into the database."""
        return None

    async def __aenter__(self) -> Self:
        """Open, creating or migrating the schema. Raises `StorageRefused`."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Finish the calls that were begun, and close. Idempotent."""
        ...

    async def changes(self, *, others: bool = False) -> int:
        """A number that differs after another process (or this one) committed. Cheap enough to ask every 50 ms.

        Args:
            others: Whether commits through this very object need not show.

        Returns:
            The number.
        """
        ...

    async def probe(self) -> None:
        """Commit something that changes nothing, so that it is known whether commits are possible.

        Raises:
            StorageError: They are not.
        """
        ...


NEEDED = (
    "__aenter__",
    "__aexit__",
    *Storage.__annotations__,
    *(
        name
        for part in (DirectoryPart, QueuePart, ControlPart, Storage)
        for name, each in vars(part).items()
        if isfunction(each) and name[0] != "_"
    ),
)
"""The names that every storage has."""
_USES: dict[Part, str] = {
    "feed": "subscriptions and items of a feed",
    "fleet": "several workers",
    "access": "keys and host names that are made at run time",
}


def unfit(storage: Storage) -> str:
    """Why an object is no storage of this level, as the rest of a sentence that begins with it; "" for one that is."""
    if missing := [name for name in NEEDED if not hasattr(storage, name)]:
        return f"without {', '.join(missing)}: see fanout.plugin for what it has to have."
    if "until" in signature(storage.extend).parameters:
        return f"of level 1 of the plugin contract, and this fanout has level {API}: install a release of it for that."
    return ""


def has_part(storage: Storage, part: Part) -> bool:
    """Whether a storage has an optional part.

    Args:
        storage: The storage.
        part: The name of the part: `feed`, `fleet`, `access` or `inbox`.

    Returns:
        Whether it has the part.
    """
    return getattr(storage, part, None) is not None


def feed_of(storage: Storage) -> Feed:
    """The feed of a storage.

    Args:
        storage: The storage.

    Returns:
        Its feed.

    Raises:
        PartAbsent: It has none.
    """
    feed: Feed = _part(storage, "feed")
    return feed


def fleet_of(storage: Storage) -> Fleet:
    """The fleet of a storage.

    Args:
        storage: The storage.

    Returns:
        Its fleet.

    Raises:
        PartAbsent: It has none.
    """
    fleet: Fleet = _part(storage, "fleet")
    return fleet


def access_of(storage: Storage) -> Access:
    """The keys and host names of a storage.

    Args:
        storage: The storage.

    Returns:
        Its part for them.

    Raises:
        PartAbsent: It has none.
    """
    access: Access = _part(storage, "access")
    return access


def _part(storage: Storage, part: Part) -> Any:
    found = getattr(storage, part, None)
    if found is None:
        raise PartAbsent(
            f"storage: {storage.location} has no part {part!r}, which {_USES[part]} need: use one that has it, such as sqlite:fanout.db."
        )
    return found


def clock_of(storage: Storage, machine: Clock) -> Clock:
    """The clock that callers of a storage go by.

    Args:
        storage: The storage.
        machine: The clock of this machine.

    Returns:
        The storage's own clock (see `Storage`), or else the machine's.
    """
    return getattr(storage, "clock", None) or machine


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePlugin:
    """The descriptor that an entry point of the group `fanout.storage` names. `name` is the scheme before the colon of
    `storage = "…"`.

    `factory` makes the storage from (location after the scheme's colon, context): a callable or "module:attribute".
    `seal`, where the backend can, seals the addresses of a database that no process has open, or seals them anew under
    the first key: an async function of (location, context, progress) that answers how many rows it wrote; `progress` is
    called with their number so far.
    """

    name: str
    factory: str | Callable[[str, StorageContext], Storage]
    api: int = API
    extra: str = ""
    seal: str | Callable[[str, StorageContext, Callable[[int], None]], Awaitable[int]] | None = None
