"""Lease and settle in memory."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.model import LANES
from fanout.core.records import Chunk, Settled, Settlement
from fanout.core.statemap import DOUBTFUL, Applied, apply, close
from fanout.core.states import Waiting
from fanout.plugin import StorageContext
from fanout.storage.memory.directory import change
from fanout.storage.memory.pieces import conclude, take_retries
from fanout.storage.memory.tables import Lane, Piece, Retry, Tables, binding_tables, finish

__all__ = ["extend", "lease", "settle", "waiting"]


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
    """Due chunks, until `limit` deliveries are reached. What only remains of stopped or doubtful ones is ended on the way."""
    queue = binding_tables(t, app, binding)[lane]
    _gather(t, context, queue, limit, now)
    chunks: list[Chunk] = []
    taken = 0
    while taken < limit and (piece := queue.next_piece()) is not None and piece.ready_at <= now:
        note = piece.note
        if note.stopped or DOUBTFUL in piece.states:
            conclude(piece, close(piece.states, note.codes, note.stopped, ""))
            finish(t, note, now)
            t.changes += 1
        if not piece.open:
            continue
        piece.owner, piece.ready_at, piece.waiting = worker, until, Waiting.READY.value
        piece.epoch += 1
        t.changes += 1
        queue.push(piece)
        taken += piece.open
        chunks.append(_chunk(piece, until))
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
    )


def _gather(t: Tables, context: StorageContext, queue: Lane, limit: int, now: float) -> None:
    """Due retry rows become chunks."""
    due: list[Retry] = []
    while len(due) < limit and (retry := queue.next_retry()) is not None and retry.due_at <= now:
        queue.pop_retry()
        due.append(retry)
    for _ in take_retries(t, due, context.chunk):
        pass


def waiting(t: Tables, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
    """For each lane whether there is work now; and when there will be, where that is later."""
    ready: list[bool] = []
    later: list[float] = []
    schedules = t.schedules.get(app, ())
    for lane, queue in enumerate(binding_tables(t, app, binding)):
        times = [note.sub.due_at for note in schedules if note.sub.lane == lane]
        times += [expansion.due_at for _, expansion in queue.expansions]
        if (piece := queue.next_piece()) is not None:
            times.append(piece.ready_at)
        if (retry := queue.next_retry()) is not None:
            times.append(retry.due_at)
        first = min(times, default=None)
        ready.append(first is not None and first <= now)
        if first is not None and first > now:
            later.append(first)
    assert len(ready) == len(LANES)
    return ready, min(later, default=None)


def extend(t: Tables, leases: Sequence[tuple[int, int]], until: float) -> list[int]:
    """Extend what is still held under that epoch; the rest is returned."""
    lost: list[int] = []
    for id, epoch in leases:
        piece = _held(t, id, epoch)
        if piece is None:
            lost.append(id)
        else:
            piece.ready_at = until
            t.changes += 1
            binding_tables(t, piece.note.sub.app, piece.binding)[piece.note.sub.lane].push(piece)
    return lost


def settle(t: Tables, settlements: Sequence[Settlement], now: float) -> list[Settled]:
    """Decide them all, then store them all: one that is wrong leaves nothing behind."""
    planned: list[tuple[Settlement, Piece | None, Applied | None]] = []
    states: dict[int, bytes] = {}
    ended: set[int] = set()
    for settlement in settlements:
        piece = _held(t, settlement.chunk, settlement.epoch)
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
    queue = binding_tables(t, note.sub.app, piece.binding)[note.sub.lane]
    note.attempts += settlement.attempts
    conclude(piece, applied)
    for row in applied.retries:
        endpoint = piece.ids[row.position]
        retry = Retry(note, piece.binding, endpoint, row.due_at, row.attempt, row.waiting, row.reason)
        note.retries[endpoint] = retry
        queue.push_retry(retry)
    if settlement.release is not None and piece.open:
        piece.owner = ""
        piece.ready_at, piece.waiting = settlement.release.due_at, settlement.release.waiting
        queue.push(piece)
    for each in settlement.changes:
        change(t, each, now)
    return Settled(False, note.sub.id if finish(t, note, now) else "")


def _held(t: Tables, id: int, epoch: int) -> Piece | None:
    piece = t.pieces.get(id)
    return piece if piece is not None and piece.owner and piece.epoch == epoch else None
