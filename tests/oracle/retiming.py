"""The clock was set back: what we made ourselves, a retry's time or a gate's, lies no further off than it was when it
was written."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle.tables import Tables, binding_tables

__all__ = ["retime"]


def retime(t: Tables, now: float) -> bool:
    """See `Storage.retime`."""
    moved = False
    for note in t.unfinished.values():
        for retry in note.retries.values():
            if retry.since > now + 1:
                retry.due_at, retry.since, moved = retry.due_at - retry.since + now, now, True
                binding_tables(t, note.sub.app, retry.binding)[note.sub.lane].push_retry(retry)
        for piece in note.pieces.values():
            if piece.open and not piece.owner and piece.since > now + 1:
                piece.ready_at, piece.since, moved = piece.ready_at - piece.since + now, now, True
                if not piece.back:
                    binding_tables(t, note.sub.app, piece.binding)[note.sub.lane].push(piece)
    for posted in t.gates.values():
        if posted.since > now + 1:
            posted.note = replace(posted.note, until=posted.note.until - posted.since + now)
            posted.since, moved = now, True
    t.changes += moved
    return moved
