"""What ends deliveries without a send: cancelling, superseding, running out of time."""

from __future__ import annotations

from itertools import islice

from fanout.core.statemap import close
from fanout.core.states import DeliveryState
from fanout.plugin import StorageContext
from tests.oracle.pause import unpause
from tests.oracle.pieces import take_retries
from tests.oracle.tables import Note, Tables, binding_tables, finish

__all__ = ["end_open", "stop"]


def stop(t: Tables, context: StorageContext, note: Note, why: str, now: float) -> int:
    """Nothing more of this notification is leased; what nobody holds ends in the state `why`. How many chunks are still
    held."""
    if note.finished_at is None:
        note.stopped = note.stopped or why
        unpause(t, note)
        end_open(t, context, note, note.stopped, "", now)
        finish(t, note, now)
    return sum(1 for piece in note.pieces.values() if piece.open)


def end_open(
    t: Tables, context: StorageContext, note: Note, state: str, reason: str, now: float, limit: int = 2**62
) -> int:
    """End what is under no running lease, until `limit` is reached, and expand no further; how many deliveries
    ended."""
    before = note.settled
    note.unexpanded = note.unexpanded or (bool(note.expansions) and state == DeliveryState.EXPIRED)
    for expansion in note.expansions:
        if expansion.binding is None:
            t.schedules[note.sub.app].remove(note)
        else:
            binding_tables(t, note.sub.app, expansion.binding)[note.sub.lane].expansions.remove((note, expansion))
    note.expansions.clear()
    for turns in note.turns:
        assert turns.binding is not None
        binding_tables(t, note.sub.app, turns.binding)[note.sub.lane].expansions.remove((note, turns))
    note.turns.clear()
    for piece in list(note.pieces.values()):
        if note.settled - before >= limit:
            break
        if piece.open and not piece.held(now):
            piece.owner, piece.back = "", False
            piece.conclude(close(piece.states, note.codes, state, reason), now)
    room = limit - (note.settled - before)
    for piece in take_retries(t, list(islice(note.retries.values(), max(room, 0))), context.chunk):
        piece.conclude(close(piece.states, note.codes, state, reason), now)
    return note.settled - before
