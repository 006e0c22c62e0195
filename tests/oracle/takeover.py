"""What becomes of a chunk whose worker was lost."""

from __future__ import annotations

from fanout.core.poison import POISON, after_crash
from fanout.core.records import Step
from fanout.core.statemap import MARKED, OPEN, RETRIED, Applied, close
from tests.oracle.pieces import add_piece
from tests.oracle.tables import Piece, Tables

__all__ = ["take_over"]


def take_over(t: Tables, piece: Piece, now: float) -> list[Piece]:
    """End what was in doubt and what is poison, and move what is suspected: the chunks made of that, for no lane as
    yet."""
    note = piece.note
    piece.trail.append(t.line(Step(now, "taken over", attempt=piece.attempt, worker=piece.owner), piece.states))
    piece.owner = ""
    closed = close(piece.states, note.codes)
    after = after_crash(closed.states, piece.crashes, piece.part)
    piece.crashes, piece.part = after.crashes, after.part
    states = bytearray(closed.states)
    ended = dict(closed.ended)
    if after.dead:
        code = note.codes.code(*POISON)
        ended[code] = ended.get(code, 0) + len(after.dead)
        for position in after.dead:
            states[position] = code
    for position in after.moved:
        states[position] = RETRIED
    suspected = Step(now, "suspected", attempt=piece.attempt)
    for position in (*after.moved, *after.dead):
        note.trails.setdefault(piece.ids[position], []).append(t.line(suspected))
    piece.conclude(Applied(bytes(states.replace(bytes((MARKED,)), bytes((OPEN,)))), ended), now)
    if not after.moved:
        return []
    ids = [piece.ids[position] for position in after.moved]
    suspects = add_piece(t, note, piece.binding, ids, attempt=piece.attempt, at=now, back=True)
    suspects.back = False
    suspects.crashes, suspects.part = after.moved_crashes, after.moved_part
    return [suspects]
