"""Settle: what leases learned, fenced."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.records import Settled, Settlement, Step
from fanout.core.statemap import Applied, apply
from tests.oracle.directory import change
from tests.oracle.pieces import add_retry, stored_word
from tests.oracle.queue import held
from tests.oracle.tables import Piece, Tables, binding_tables, finish

__all__ = ["settle"]


def settle(t: Tables, settlements: Sequence[Settlement], now: float) -> list[Settled]:
    """Decide them all, then store them all: one that is wrong leaves nothing behind."""
    planned: list[tuple[Settlement, Piece | None, Applied | None]] = []
    states: dict[int, bytes] = {}
    ended: set[int] = set()
    for settlement in settlements:
        piece = held(t, settlement.chunk, settlement.epoch)
        if piece is None or piece.id in ended:
            planned.append((settlement, None, None))
            continue
        applied = apply(states.get(piece.id, piece.states), settlement, piece.note.codes, piece.note.stopped)
        states[piece.id] = applied.states
        if settlement.release is not None or not applied.open:
            ended.add(piece.id)
        planned.append((settlement, piece, applied))
    return [
        Settled(True) if piece is None or applied is None else _store(t, settlement, piece, applied, now)
        for settlement, piece, applied in planned
    ]


def _store(t: Tables, settlement: Settlement, piece: Piece, applied: Applied, now: float) -> Settled:
    note = piece.note
    note.attempts += settlement.attempts
    piece.conclude(applied, now)
    for row in applied.retries:
        add_retry(t, piece, row, now)
    back = settlement.release
    if back is not None and piece.open:
        piece.owner = ""
        piece.ready_at, piece.waiting, piece.since = back.due_at, stored_word(back.waiting), now
        step = Step(now, "released", back.reason, piece.attempt, back.due_at, waiting=piece.waiting)
        piece.trail.append(t.line(step, piece.states))
        binding_tables(t, note.sub.app, piece.binding)[note.sub.lane].push(piece)
    for each in settlement.changes:
        change(t, each, now)
    return Settled(False, note.sub.id if finish(t, note, now) else "")
