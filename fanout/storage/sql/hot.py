"""The bookkeeping that every end of a delivery goes through, as operations see it: a driver hands in how it is
written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.core.records import Settled
from fanout.core.statemap import Codes
from fanout.storage.book import Book
from fanout.storage.chunks import NewChunk
from fanout.storage.settlements import Held
from fanout.storage.sql.directory import Entries, Known

__all__ = ["Hot", "Ledger", "Want"]

Want = tuple[int, str, list[Any]]
"""(app's number, kind, names or ids) of one target."""


class Ledger(Book):
    """Collects the deliveries that a transaction ends, and writes them in a few statements. The notifications are held
    (`ledger.hold`)."""

    @abstractmethod
    async def write(self, now: float) -> None:
        """Store it all; chunks in `releases` and `parts` have a new map too. A notification that is finished with that
        is for `finish` to end."""

    @abstractmethod
    async def finish(self, now: float) -> dict[int, Settled]:
        """`Hot.finish_ready` for every notification that `write` left without a rest."""


@dataclass(frozen=True, slots=True)
class Hot:
    """Operations of which a driver has statements of its own; the first argument of each is its `Db`."""

    ledger: Callable[..., Ledger]
    """(db, codes by notification or None)."""
    held: Callable[[Any, Sequence[int]], Awaitable[tuple[dict[int, Held], dict[int, Codes]]]]
    """(db, chunks): those of them that are leased, and the lists of (state, reason) of their notifications, all held
    from then on."""
    end: Callable[[Any, Sequence[Sequence[Any]], float], Awaitable[Iterable[Sequence[Any]]]]
    """(db, rows, now): end chunks, and with each its notification, that are leased under this epoch, untouched, and all
    of a notification that is not stopped. A row is a number, chunk, epoch, deliveries, attempts, state, reason, new
    map, end of the event. Of each that has ended: number, notification's id, app's name, attempts, accepted at, due at,
    expires at."""
    add_retries: Callable[[Any, Sequence[Sequence[Any]]], Awaitable[None]]
    """(db, rows): store these rows of the table `retry`: notification, endpoint, binding, lane, due at, attempt,
    waiting, reason, holds, since."""
    add_chunks: Callable[[Any, Sequence[NewChunk], float], Awaitable[Sequence[int]]]
    """(db, chunks, now): store new chunks, without a lease; their numbers, which ascend."""
    blank: Callable[[Any, Sequence[int], bytes], Awaitable[None]]
    """(db, notifications that are held, content): all that these said is gone, and the content is this."""
    forget_entered: Callable[[Any, str, str, set[int], float], Awaitable[None]]
    """(db, app, user, the user's endpoints, now): inbox entries that no worker has taken lose the user."""
    forget_in_log: Callable[[Any, int, str], Awaitable[None]]
    """(db, app's number, user): lines of the event log about the user name neither the user nor the user's devices."""
    finish_ready: Callable[[Any, Sequence[int], float], Awaitable[dict[int, Settled]]]
    """(db, notifications that are held, now): those of which nothing is left become finished, with an event each:
    number to the answer to the settlement that finished it."""
    audience: Callable[..., Awaitable[Sequence[int]]]
    """(db, audience or None, binding's name and number, topic or None for all, cursor, high, limit): the next endpoints
    behind the cursor, in an order of the driver's, of which the last is the next cursor."""
    insert: Callable[[Any, Sequence[Sequence[Any]]], Awaitable[Sequence[int]]]
    """(db, rows): store these notifications; their numbers, which ascend. A row is uuid, app, lane, repeat, accepted
    at, due at, expires at, collapse key, target's digest, content, aim, names, total, expansions."""
    look_up: Callable[[Any, Sequence[Want]], Awaitable[list[dict[int, list[int]]]]]
    """(db, targets that are no topic and not all): the active endpoints of each, by binding's number, ids ascending."""
    fill: Callable[[Any, Sequence[tuple[int, int, bytes]]], Awaitable[Any]]
    """(db, rows): give scheduled notifications (number, bytes of content so far, new content) their new content."""
    known: Callable[..., Awaitable[tuple[dict[int, Known], dict[int, list[Known]]]]]
    """(db, registrations, places, whether addresses may change hands): by index, the endpoint that holds each address
    now, and endpoints of the same user that had it once; locked until the transaction ends, all of them by id."""
    numbers: Callable[..., Awaitable[Sequence[int]]]
    """(db, which of the registrations, registrations, places): ids of new endpoints, which ascend within a part of the
    directory."""
    enter: Callable[[Any, Entries, float], Awaitable[None]]
    """(db, entries, now): store them."""
