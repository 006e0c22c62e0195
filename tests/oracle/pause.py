"""Pausing and resuming, of one notification or of a binding."""

from __future__ import annotations

from fanout.core.records import Control, Step
from fanout.core.states import MENDED
from tests.oracle.tables import Note, Tables, binding_tables

__all__ = ["bring_forward", "pause", "pause_binding", "resume", "resume_binding", "retry_binding", "unpause"]


def pause(t: Tables, note: Note, now: float) -> int:
    """Hold it; how many of its chunks are under a running lease."""
    if note.finished_at is None and not note.stopped and not note.paused:
        note.paused = True
        note.trail.append(t.line(Step(now, "paused")))
        t.changes += 1
    return sum(1 for piece in note.pieces.values() if piece.open and piece.held(now))


def resume(t: Tables, note: Note, now: float) -> None:
    """Lift the pause."""
    if unpause(t, note):
        if note.finished_at is None:
            note.trail.append(t.line(Step(now, "resumed")))
        t.changes += 1


def unpause(t: Tables, note: Note) -> bool:
    """It is paused no more: what its lanes have let fall meanwhile is theirs again. Whether it was paused."""
    if not note.paused:
        return False
    note.paused = False
    for piece in note.pieces.values():
        if piece.open and not piece.back:
            binding_tables(t, note.sub.app, piece.binding)[note.sub.lane].push(piece)
    for retry in note.retries.values():
        binding_tables(t, note.sub.app, retry.binding)[note.sub.lane].push_retry(retry)
    return True


def pause_binding(t: Tables, app: str, binding: str, now: float) -> int:
    """Hold everything of it; how many of its chunks are under a running lease."""
    if not t.paused(app, binding):
        nudge = t.controls.get((app, binding), Control()).nudge
        t.controls[app, binding] = Control(True, nudge)
        t.pauses.setdefault((app, binding), []).append(t.line(Step(now, "paused")))
        t.changes += 1
    return sum(
        1
        for note in t.unfinished.values()
        if note.sub.app == app
        for piece in note.pieces.values()
        if piece.binding == binding and piece.open and piece.held(now)
    )


def resume_binding(t: Tables, app: str, binding: str, now: float) -> None:
    """Lift its pause, and count the request."""
    if t.paused(app, binding):
        t.pauses[app, binding].append(t.line(Step(now, "resumed")))
        t.controls[app, binding] = Control(False, t.controls[app, binding].nudge)
    retry_binding(t, app, binding, now)


def retry_binding(t: Tables, app: str, binding: str, now: float) -> None:
    """What waits for the binding's gates is due now; the request is counted."""
    lanes = binding_tables(t, app, binding)
    for note in t.unfinished.values():
        if note.sub.app != app:
            continue
        lane = lanes[note.sub.lane]
        for piece in note.pieces.values():
            if (
                piece.binding == binding
                and piece.open
                and not (piece.owner or piece.back)
                and piece.waiting in MENDED
                and piece.ready_at > now
            ):
                piece.ready_at = now
                lane.push(piece)
        for retry in note.retries.values():
            if retry.binding == binding and retry.waiting in MENDED and retry.due_at > now:
                retry.due_at = now
                lane.push_retry(retry)
    known = t.controls.get((app, binding), Control())
    t.controls[app, binding] = Control(known.paused, known.nudge + 1)
    t.changes += 1


def bring_forward(t: Tables, app: str, binding: str, before: float, now: float, limit: int) -> int:
    """What was given back before `before` to wait for a gate is due now, in parts; how many."""
    lanes = binding_tables(t, app, binding)
    notes = [note for note in t.unfinished.values() if note.sub.app == app]
    pieces = [
        (piece.ready_at, piece.id, note.sub.lane, piece)
        for note in notes
        for piece in note.pieces.values()
        if piece.binding == binding and piece.open and not (piece.owner or piece.back) and piece.waiting == "gate"
        if piece.ready_at > now and piece.since < before
    ]
    for _, _, lane, piece in sorted(pieces)[:limit]:
        piece.ready_at = now
        lanes[lane].push(piece)
    retries = [
        (retry.due_at, i, endpoint, note.sub.lane, retry)
        for i, note in enumerate(notes)
        for endpoint, retry in note.retries.items()
        if retry.binding == binding
        and retry.waiting == "gate"
        and not retry.holds
        and retry.due_at > now
        and retry.since < before
    ]
    for *_, lane, retry in sorted(retries)[:limit]:
        retry.due_at = now
        lanes[lane].push_retry(retry)
    moved = min(limit, len(pieces)) + min(limit, len(retries))
    t.changes += moved > 0
    return moved
