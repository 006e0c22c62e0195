"""Chunks and retry rows: made, and made of each other."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from fanout.core.records import RetryRow, Step
from fanout.core.states import Waiting
from tests.oracle.tables import Note, Piece, Retry, Tables, binding_tables

__all__ = ["add_piece", "add_retry", "stored_word", "take_retries"]


def add_piece(
    t: Tables,
    note: Note,
    binding: str,
    ids: Sequence[int],
    *,
    attempt: int,
    at: float,
    cut_at: float | None = None,
    back: bool = False,
) -> Piece:
    """A new chunk that can be leased from `at`; held `back`, not before its lane is told of it. `cut_at` is for one
    whose deliveries are new."""
    t.last_piece += 1
    t.changes += 1
    piece = Piece(
        t.last_piece, note, binding, attempt, at, Waiting.READY.value, array("q", ids), bytes(len(ids)), len(ids)
    )
    t.pieces[piece.id] = note.pieces[piece.id] = piece
    if cut_at is not None:
        piece.queued = t.line(Step(cut_at, "queued", attempt=attempt, waiting=Waiting.LANE.value if back else ""))
    piece.back = back
    if not back:
        binding_tables(t, note.sub.app, binding)[note.sub.lane].push(piece)
    return piece


def add_retry(t: Tables, piece: Piece, row: RetryRow, now: float) -> None:
    """One delivery of this chunk waits alone."""
    note = piece.note
    endpoint = piece.ids[row.position]
    waiting = stored_word(row.waiting)
    what = "retry" if row.attempt > piece.attempt else "held"
    line = t.line(Step(now, what, row.reason, row.attempt, row.due_at, waiting=waiting))
    note.trails.setdefault(endpoint, []).append(line)
    retry = Retry(
        line.number, note, piece.binding, endpoint, row.due_at, row.attempt, waiting, row.reason, row.holds, now
    )
    note.retries[endpoint] = retry
    if row.holds:
        t.holding.setdefault(endpoint, {})[note.row] = retry
    binding_tables(t, note.sub.app, piece.binding)[note.sub.lane].push_retry(retry)


def take_retries(t: Tables, retries: Iterable[Retry], size: int) -> Iterator[Piece]:
    """Turn retry rows into chunks of at most `size`, one notification, binding and attempt each."""
    groups: dict[tuple[int, str, int], list[Retry]] = {}
    for retry in retries:
        del retry.note.retries[retry.endpoint]
        if retry.holds:
            _let_go(t, retry)
        groups.setdefault((retry.note.row, retry.binding, retry.attempt), []).append(retry)
    for (_, binding, attempt), group in groups.items():
        group.sort(key=lambda retry: retry.endpoint)
        for start in range(0, len(group), size):
            part = group[start : start + size]
            ids = [retry.endpoint for retry in part]
            due_at = min(retry.due_at for retry in part)
            yield add_piece(t, part[0].note, binding, ids, attempt=attempt, at=due_at)


def _let_go(t: Tables, retry: Retry) -> None:
    holding = t.holding[retry.endpoint]
    del holding[retry.note.row]
    if not holding:
        del t.holding[retry.endpoint]


def stored_word(waiting: str) -> str:
    """What a chunk or retry waits for, as it is kept: a pause is kept with what is paused."""
    return Waiting.READY.value if waiting == Waiting.PAUSED.value else waiting
