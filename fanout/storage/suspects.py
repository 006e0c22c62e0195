"""The fate of a due chunk before it is leased again: after a stop, after doubt, and after the loss of its worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fanout.core.poison import POISON, after_crash
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED, Applied, Codes, close
from fanout.core.states import DeliveryState
from fanout.storage.book import Book
from fanout.storage.chunks import NewChunk
from fanout.storage.decisions import Entries, ranges

__all__ = ["LOST", "Due", "Suspects"]

LOST = (DeliveryState.DEAD.value, "audience lost")
"""How deliveries end of which the database does not know any longer to which endpoint they go."""
_MARK = bytes((MARKED,))
_NO_MARK = bytes((OPEN,))


@dataclass(slots=True)
class Due:
    """A due chunk, as it was left. Without a `worker` it was given back, with one its lease has run out. `lost`: its
    recipients are stored no longer."""

    id: int
    notification: int
    binding: int
    lane: int
    attempt: int
    states: bytes
    stopped: str
    worker: str | None
    leased_at: float | None
    leased_after: int | None
    crashes: int
    part: int
    lost: bool = False


class Suspects:
    """Judges due chunks one by one. Ends and decisions go to `book` and `entries`."""

    def __init__(self, due: Iterable[Due], book: Book, entries: Entries) -> None:
        self._due = {each.id: each for each in due}
        self._book = book
        self._entries = entries
        self._moved: list[tuple[Due, Sequence[int], int, int]] = []

    def judge(self, id: int) -> int:
        """End the doubtful deliveries of a lost worker, and stopped ones; count a crash. How many remain open in it."""
        due = self._due[id]
        end = LOST if due.lost and not due.stopped else (due.stopped, "")
        applied = close(due.states, self._book.codes[due.notification], *end)
        if due.worker is not None and not (due.stopped or due.lost):
            applied = self._after_crash(due, applied)
        self._book.conclude(due.notification, id, applied)
        return applied.open

    def _after_crash(self, due: Due, applied: Applied) -> Applied:
        suspected: tuple[int, ...] = ()
        dead: tuple[int, ...] = ()
        doubtful = [position for position, state in enumerate(due.states) if state == DOUBTFUL]
        if applied.open:
            after = after_crash(applied.states, due.crashes, due.part)
            suspected, dead = after.moved + after.dead, after.dead
            self._book.parts.append((due.id, after.crashes, after.part))
            if after.moved:
                self._moved.append((due, after.moved, after.moved_crashes, after.moved_part))
            applied = _without(applied, after.moved, dead, self._book.codes[due.notification])
        lease = (due.worker, due.leased_at, due.leased_after, ranges(due.states))
        self._entries.add(due.notification, "lost", due.id, suspected, doubtful, *lease)
        return applied

    @property
    def movers(self) -> list[int]:
        """The chunks from which something moves: `moved` asks for their ids."""
        return [due.id for due, *_ in self._moved]

    def moved(self, audiences: Mapping[int, Sequence[int]], now: float) -> list[NewChunk]:
        """The deliveries that move to chunks of their own."""
        chunks = []
        for due, positions, crashes, part in self._moved:
            ids = audiences[due.id]
            mine = [ids[position] for position in positions]
            key = (due.notification, due.binding, due.lane, due.attempt)
            chunks.append(NewChunk(*key, now, mine, crashes=crashes, part=part))
        return chunks


def _without(applied: Applied, moved: Sequence[int], dead: Sequence[int], codes: Codes) -> Applied:
    """The map without deliveries that have left the chunk, and without marks: these are made anew before the next
    send."""
    states = bytearray(applied.states.replace(_MARK, _NO_MARK))
    for position in moved:
        states[position] = RETRIED
    ended = dict(applied.ended)
    if dead:
        code = codes.code(*POISON)
        for position in dead:
            states[position] = code
        ended[code] = ended.get(code, 0) + len(dead)
    return Applied(bytes(states), ended)
