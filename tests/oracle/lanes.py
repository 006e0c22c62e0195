"""What one lane of one binding waits with."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.oracle.tables import Expansion, Note, Piece, Retry

__all__ = ["Lane"]


@dataclass(slots=True)
class Lane:
    """Heaps whose entries may be outdated, and expansions in the order in which they began.

    What is paused falls out of the heaps when it comes up, and is pushed again when the pause ends.
    """

    pieces: list[tuple[float, int, Piece]] = field(default_factory=list)
    retries: list[tuple[float, int, int, int, Retry]] = field(default_factory=list)
    expansions: list[tuple[Note, Expansion]] = field(default_factory=list)

    def push(self, piece: Piece) -> None:
        """The chunk is new, or its time has changed."""
        heappush(self.pieces, (piece.ready_at, piece.id, piece))

    def next_piece(self) -> Piece | None:
        """The chunk that can be leased first."""
        while self.pieces:
            at, _, piece = self.pieces[0]
            if piece.open and piece.ready_at == at and not piece.note.paused:
                return piece
            heappop(self.pieces)
        return None

    def due(self, now: float) -> int:
        """How many chunks could be leased now."""
        # The heap may name a chunk twice: when a lease was extended to the time that it had already.
        return len(
            {
                piece.id
                for at, _, piece in self.pieces
                if piece.open and piece.ready_at == at <= now and not piece.note.paused
            }
        )

    def push_retry(self, retry: Retry) -> None:
        """One more delivery waits alone."""
        heappush(self.retries, (retry.due_at, retry.note.row, retry.endpoint, retry.number, retry))

    def pop_retry(self) -> None:
        """The first one is taken."""
        heappop(self.retries)

    def next_retry(self) -> Retry | None:
        """The retry that is due first."""
        while self.retries:
            at, *_, retry = self.retries[0]
            known = retry.note.retries.get(retry.endpoint) is retry
            if known and retry.due_at == at and not retry.note.paused:
                return retry
            heappop(self.retries)
        return None

    def running(self) -> list[tuple[Note, Expansion]]:
        """The expansions that are not paused, those due first first."""
        return sorted((each for each in self.expansions if not each[0].paused), key=_due_at)

    def expandable(self, now: float) -> list[tuple[Note, Expansion]]:
        """Those of them that are due."""
        return [each for each in self.running() if _due_at(each) <= now]


def _due_at(each: tuple[Note, Expansion]) -> float:
    return each[1].due_at
