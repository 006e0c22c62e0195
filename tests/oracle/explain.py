"""What was decided about one delivery, from the lines that chunks, notification and binding keep."""

from __future__ import annotations

from bisect import bisect_left

from fanout.core.records import Step
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED
from fanout.core.states import Waiting
from tests.oracle.tables import Line, Note, Piece, Tables

__all__ = ["explain"]

_UNSETTLED = (OPEN, MARKED, DOUBTFUL)


def explain(t: Tables, note: Note, endpoint: int) -> list[Step]:
    """All of it, in the order in which it was stored; nothing for an endpoint to which there is no delivery."""
    lines: list[Line] = []
    end: Step | None = None
    binding: str | None = None
    for piece in note.pieces.values():
        position = bisect_left(piece.ids, endpoint)
        if position == len(piece.ids) or piece.ids[position] != endpoint:
            continue
        binding = piece.binding
        if piece.queued is not None:
            lines.append(piece.queued)
        lines += [line for line in piece.trail if line.states[position] in _UNSETTLED]
        if piece.states[position] not in (*_UNSETTLED, RETRIED):
            end = _end(piece, position)
    if binding is None:
        return []
    lines += note.trails.get(endpoint, ())
    accepted_at, ended_at = note.sub.accepted_at, end.at if end is not None else float("inf")
    pauses = [*note.trail, *t.pauses.get((note.sub.app, binding), ())]
    lines += [line for line in pauses if accepted_at <= line.step.at <= ended_at]
    first = _accepted(note)
    return [first, *(line.step for line in sorted(lines, key=lambda line: line.number)), *([end] if end else [])]


def _accepted(note: Note) -> Step:
    sub = note.sub
    if sub.due_at <= sub.accepted_at:
        return Step(sub.accepted_at, "accepted")
    return Step(sub.accepted_at, "accepted", until=sub.due_at, waiting=Waiting.SCHEDULED.value)


def _end(piece: Piece, position: int) -> Step:
    """A chunk keeps one time for all that ended in it: the first line that finds the delivery ended bounds it."""
    state, reason = piece.note.codes.pair(piece.states[position])
    later = [line.step.at for line in piece.trail if line.states[position] not in _UNSETTLED]
    at = min([piece.ended_at, *later[:1]])
    return Step(at, "ended", reason, piece.attempt, state=state)
