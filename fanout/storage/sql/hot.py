"""The bookkeeping that every end of a delivery goes through, as operations see it: a driver hands in how it is written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.storage.book import Book
from fanout.storage.chunks import NewChunk

__all__ = ["Hot", "Ledger"]


class Ledger(Book):
    """Collects what a transaction ends, and writes it in a few statements. The notifications are held (`ledger.hold`)."""

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
