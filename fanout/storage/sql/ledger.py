"""The bookkeeping that every end of a delivery goes through, as operations see it: a driver hands in how it is written (`Hot`).

Whoever adds to a notification or ends something of it holds that one's row first (`hold`): chunks, retry rows, expansions, tallies and
backlog of a notification change under its lock alone. The one exception is a lease of what is in order, which changes nothing but the
chunk, and never waits for a row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fanout.core.statemap import Codes
from fanout.storage.book import Book
from fanout.storage.chunks import NewChunk

if TYPE_CHECKING:
    from fanout.storage.sql.db import Db

__all__ = ["Hot", "Ledger", "codes_of", "hold"]


class Ledger(Book):
    """Collects what a transaction ends, and writes it in a few statements. The notifications are held (`hold`)."""

    @abstractmethod
    async def write(self, now: float) -> None:
        """Store it all. What is finished with that is for `finish` to end."""

    @abstractmethod
    async def finish(self, now: float) -> dict[int, str]:
        """`Hot.finish_ready` for every notification that `write` left without a rest."""


@dataclass(frozen=True, slots=True)
class Hot:
    """Operations of which a driver has statements of its own; the first argument of each is its `Db`."""

    ledger: Callable[..., Ledger]
    """(db, codes by notification or None)."""
    add_chunks: Callable[[Any, Sequence[NewChunk], float], Awaitable[Any]]
    """(db, chunks, now): store new chunks, owned by nobody."""
    finish_ready: Callable[[Any, Sequence[int], float], Awaitable[dict[int, str]]]
    """(db, notifications that are held, now): those of which nothing is left become finished, with an event each: number to id."""


async def hold(db: Db, notifications: Iterable[int], *, wait: bool = True) -> list[int]:
    """Lock the rows of these notifications until the transaction ends, by number; those that are there.

    Without `wait`, rows that others have locked are left out.
    """
    wanted = list(notifications)
    if not wanted:
        return []
    rows = await db.rows(
        f"SELECT id FROM notification WHERE id {db.among(1, 'bigint')}{db.hold('id', free=not wait)}", wanted
    )
    return sorted(id for (id,) in rows)


async def codes_of(db: Db, notifications: Iterable[int]) -> dict[int, Codes]:
    """The list of (state, reason) of each of these notifications."""
    pairs: dict[int, list[tuple[str, str]]] = {id: [] for id in notifications}
    rows = await db.rows(
        f"SELECT notification, state, reason FROM tally WHERE notification {db.among(1, 'bigint')} ORDER BY notification, code",
        list(pairs),
    )
    for id, state, reason in rows:
        pairs[id].append((state, reason))
    return {id: Codes(each) for id, each in pairs.items()}
