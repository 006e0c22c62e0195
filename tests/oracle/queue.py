"""Lease, extend, and what could be leased."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.model import LANES
from fanout.core.records import Chunk, Step
from fanout.core.statemap import DOUBTFUL, close
from fanout.core.states import Waiting
from fanout.plugin import StorageContext
from tests.oracle.lanes import Lane
from tests.oracle.pieces import take_retries
from tests.oracle.tables import Piece, Retry, Tables, binding_tables, finish
from tests.oracle.takeover import take_over

__all__ = ["extend", "held", "lease", "waiting"]


def lease(
    t: Tables,
    context: StorageContext,
    worker: str,
    app: str,
    binding: str,
    lane: int,
    limit: int,
    now: float,
    until: float,
) -> list[Chunk]:
    """Due chunks, until `limit` deliveries are reached. What only remains of stopped or doubtful ones is ended on the
    way."""
    if t.paused(app, binding):
        return []
    queue = binding_tables(t, app, binding)[lane]
    _gather(t, context, queue, limit, now)
    chunks: list[Chunk] = []
    suspects: list[Piece] = []
    taken = 0
    while taken < limit and (piece := queue.next_piece()) is not None and piece.ready_at <= now:
        note = piece.note
        if note.stopped or (not piece.owner and DOUBTFUL in piece.states):
            piece.conclude(close(piece.states, note.codes, note.stopped, ""), now)
            t.changes += 1
        elif piece.owner:
            suspects += take_over(t, piece, now)
            t.changes += 1
        if not piece.open:
            finish(t, note, now)
            continue
        piece.owner, piece.ready_at, piece.waiting = worker, until, Waiting.READY.value
        piece.epoch += 1
        piece.trail.append(t.line(Step(now, "leased", attempt=piece.attempt, worker=worker), piece.states))
        t.changes += 1
        queue.push(piece)
        taken += piece.open
        chunks.append(_chunk(piece, until))
    for piece in suspects:
        queue.push(piece)
    return chunks


def _chunk(piece: Piece, until: float) -> Chunk:
    sub = piece.note.sub
    return Chunk(
        piece.id,
        sub.id,
        sub.app,
        piece.binding,
        sub.lane,
        piece.attempt,
        piece.epoch,
        until,
        piece.ids[:],
        piece.states,
        piece.part,
    )


def _gather(t: Tables, context: StorageContext, queue: Lane, limit: int, now: float) -> None:
    """Due retry rows become chunks."""
    due: dict[int, Retry] = {}
    while len(due) < limit and (retry := queue.next_retry()) is not None and retry.due_at <= now:
        queue.pop_retry()
        due[retry.number] = retry
    for _ in take_retries(t, due.values(), context.chunk):
        pass


def waiting(t: Tables, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
    """For each lane whether there is work now; and when there will be, where that is later."""
    if t.paused(app, binding):
        return [False] * len(LANES), None
    ready: list[bool] = []
    later: list[float] = []
    schedules = [note for note in t.schedules.get(app, ()) if not note.paused]
    for lane, queue in enumerate(binding_tables(t, app, binding)):
        times = [note.sub.due_at for note in schedules if note.sub.lane == lane]
        times += [expansion.due_at for _, expansion in queue.running()]
        if (piece := queue.next_piece()) is not None:
            times.append(piece.ready_at)
        if (retry := queue.next_retry()) is not None:
            times.append(retry.due_at)
        first = min(times, default=None)
        ready.append(first is not None and first <= now)
        if first is not None and first > now:
            later.append(first)
    return ready, min(later, default=None)


def extend(t: Tables, leases: Sequence[tuple[int, int, float]]) -> list[int]:
    """Extend what is still held under that epoch; the rest is returned."""
    lost: list[int] = []
    for id, epoch, until in leases:
        piece = held(t, id, epoch)
        if piece is None:
            lost.append(id)
        else:
            piece.ready_at = until
            t.changes += 1
            binding_tables(t, piece.note.sub.app, piece.binding)[piece.note.sub.lane].push(piece)
    return lost


def held(t: Tables, id: int, epoch: int) -> Piece | None:
    """The chunk, if it is leased under that epoch."""
    piece = t.pieces.get(id)
    return piece if piece is not None and piece.owner and piece.epoch == epoch else None
