"""How things stand, in memory: status, deliveries, what is outstanding."""

from __future__ import annotations

from collections import Counter

from fanout.core.records import Status, Stored
from fanout.core.statemap import DOUBTFUL, OPEN, RETRIED
from fanout.core.states import Waiting
from fanout.storage.memory.tables import Note, Tables

__all__ = ["deliveries", "outstanding", "status", "stored"]


def stored(note: Note) -> Stored:
    """The notification as it was put."""
    sub = note.sub
    return Stored(
        sub.id,
        sub.app,
        sub.content,
        sub.lane,
        sub.repeat,
        sub.accepted_at,
        sub.due_at,
        sub.expires_at,
        note.stopped,  # type: ignore[arg-type]
    )


def status(note: Note) -> Status:
    """The notification's state of affairs."""
    sub = note.sub
    reasons: dict[str, dict[str, int]] = {}
    for code, n in note.ended.items():
        state, reason = note.codes.pair(code)
        reasons.setdefault(state, {})[reason] = n
    pending: Counter[str] = Counter()
    for piece in note.pieces.values():
        if piece.open:
            pending[piece.waiting] += piece.open
    pending.update(retry.waiting for retry in note.retries.values())
    return Status(
        id=sub.id,
        app=sub.app,
        state=note.state,
        total=None if note.expansions else note.total,
        counts=note.counts,
        pending_by_reason=dict(pending),
        reasons=reasons,
        attempts=note.attempts,
        accepted_at=sub.accepted_at,
        due_at=sub.due_at,
        expires_at=sub.expires_at,
        finished_at=note.finished_at,
        oldest_pending_at=sub.due_at if note.finished_at is None else None,
    )


def deliveries(note: Note, state: str | None, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(endpoint, state, reason) by endpoint."""
    rows: list[tuple[int, str, str]] = []
    for piece in note.pieces.values():
        for endpoint, code in zip(piece.ids, piece.states, strict=True):
            if code in (OPEN, DOUBTFUL):
                rows.append((endpoint, "pending", piece.waiting))
            elif code != RETRIED:
                rows.append((endpoint, *note.codes.pair(code)))
    rows += [(retry.endpoint, "pending", retry.waiting) for retry in note.retries.values()]
    return [row for row in sorted(rows) if row[0] > after and (state is None or row[1] == state)][:limit]


def outstanding(t: Tables, app: str | None) -> dict[str, int]:
    """Deliveries of unfinished notifications by what they wait for."""
    found: Counter[str] = Counter()
    for note in t.unfinished.values():
        if app is not None and note.sub.app != app:
            continue
        for piece in note.pieces.values():
            if piece.open:
                found["leased" if piece.owner else piece.waiting] += piece.open
        found.update(retry.waiting for retry in note.retries.values())
        found.update(
            Waiting.SCHEDULED.value if expansion.binding is None else Waiting.READY.value
            for expansion in note.expansions
        )
    return dict(found)
