"""The result of settlements, given the chunks that are held: all that is to be written, and each one's answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.core.records import AddressMoved, EndpointGone, RetryRow, Settled, Settlement
from fanout.core.statemap import apply
from fanout.core.states import Waiting
from fanout.storage.book import Book
from fanout.storage.decisions import Entries, ranges

__all__ = ["Held", "Settling"]


@dataclass(slots=True)
class Held:
    """A chunk under a lease, as it stands after the settlements so far."""

    epoch: int
    notification: int
    stopped: str
    binding: int
    lane: int
    worker: str
    leased_at: float | None
    leased_after: int | None
    states: bytes


class Settling:
    """Takes settlements in order, each if its lease is still held. Ends and decisions go to `book` and `entries`."""

    def __init__(self, held: dict[int, Held], book: Book, entries: Entries) -> None:
        self._held = held
        self._book = book
        self._entries = entries
        self._last: dict[int, int] = {}
        self.answers: list[Settled] = []
        self.retries: list[tuple[Held, int, Sequence[RetryRow]]] = []
        """(its chunk, that one's number, the rows) of each settlement that asks for retry rows."""
        self.changes: list[EndpointGone | AddressMoved] = []

    def take(self, settlement: Settlement) -> None:
        """The next one. Raises `UsageError`."""
        chunk = self._held.get(settlement.chunk)
        if chunk is None or chunk.epoch != settlement.epoch:
            self.answers.append(Settled(True))
            return
        applied = apply(chunk.states, settlement, self._book.codes[chunk.notification], chunk.stopped)
        chunk.states = applied.states
        self._book.conclude(chunk.notification, settlement.chunk, applied)
        self._book.of(chunk.notification).attempts += settlement.attempts
        rows = applied.retries
        if rows:
            if any(row.waiting == Waiting.PAUSED for row in rows):
                rows = [row._replace(waiting=_word(row.waiting)) for row in rows]
            self.retries.append((chunk, settlement.chunk, rows))
        parked: list[Any] | None = None
        release = settlement.release
        if not applied.open:
            del self._held[settlement.chunk]
        elif release is not None:
            waiting = _word(release.waiting)
            self._book.releases.append((settlement.chunk, release.due_at, waiting))
            lease = (chunk.worker, chunk.leased_at, chunk.leased_after, ranges(chunk.states))
            parked = [release.due_at, waiting, release.reason, *lease]
            del self._held[settlement.chunk]
        self._entries.settled(chunk.notification, settlement, rows, parked)
        if applied.ended:
            self._last[chunk.notification] = len(self.answers)
        self.answers.append(Settled(False))
        self.changes += settlement.changes

    def backlog(self) -> Counter[tuple[int, int, str]]:
        """How many retry rows more wait, by (notification, binding, reason)."""
        return Counter(
            (chunk.notification, chunk.binding, row.waiting) for chunk, _, rows in self.retries for row in rows
        )

    def finished(self, notifications: Mapping[int, Settled]) -> list[Settled]:
        """The answers, given those to the settlements that finished notifications, by number."""
        for notification, answer in notifications.items():
            self.answers[self._last[notification]] = answer
        return self.answers


def _word(waiting: str) -> str:
    """Whether something is paused is known of the notification and the binding: a word of it could outlive the
    pause."""
    return Waiting.READY.value if waiting == Waiting.PAUSED else waiting
