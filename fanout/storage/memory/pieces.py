"""Chunks in memory: made, concluded, gathered from retries."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from fanout.core.statemap import Applied
from fanout.core.states import Waiting
from fanout.storage.memory.tables import Note, Piece, Retry, Tables, binding_tables, tally

__all__ = ["add_piece", "conclude", "take_retries"]


def add_piece(t: Tables, note: Note, binding: str, ids: Sequence[int], *, attempt: int, at: float) -> Piece:
    """A new chunk that can be leased from `at`."""
    t.last_piece += 1
    t.changes += 1
    piece = Piece(
        t.last_piece, note, binding, attempt, at, Waiting.READY.value, array("q", ids), bytes(len(ids)), len(ids)
    )
    t.pieces[piece.id] = note.pieces[piece.id] = piece
    binding_tables(t, note.sub.app, binding)[note.sub.lane].push(piece)
    return piece


def conclude(piece: Piece, applied: Applied) -> None:
    """Store a chunk's new map. One without open deliveries is done, and nobody holds it."""
    piece.states = applied.states
    piece.open = applied.open
    tally(piece.note, applied)
    if not piece.open:
        piece.owner = ""


def take_retries(t: Tables, retries: Iterable[Retry], size: int) -> Iterator[Piece]:
    """Turn retry rows into chunks of at most `size`, one notification, binding and attempt each."""
    groups: dict[tuple[int, str, int], list[Retry]] = {}
    for retry in retries:
        del retry.note.retries[retry.endpoint]
        groups.setdefault((retry.note.row, retry.binding, retry.attempt), []).append(retry)
    for (_, binding, attempt), group in groups.items():
        group.sort(key=lambda retry: retry.endpoint)
        for start in range(0, len(group), size):
            part = group[start : start + size]
            ids = [retry.endpoint for retry in part]
            due_at = min(retry.due_at for retry in part)
            yield add_piece(t, part[0].note, binding, ids, attempt=attempt, at=due_at)
