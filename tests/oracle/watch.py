"""How things stand: status, deliveries, what is outstanding and how much."""

from __future__ import annotations

from array import array
from collections import Counter

from fanout.core.endpoint import EndpointState
from fanout.core.records import Backlog, EndpointRow, Status, Stored
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED
from fanout.core.states import UNEXPANDED, DeliveryState, Waiting
from tests.oracle.directory import covers
from tests.oracle.gates import covering
from tests.oracle.tables import Note, Piece, Retry, Tables

__all__ = ["backlog", "deliveries", "outstanding", "rows", "status", "stored", "superseded"]

_LEASED = "leased"
_READY, _LANE, _PAUSED = Waiting.READY.value, Waiting.LANE.value, Waiting.PAUSED.value


def rows(t: Tables, ids: array[int], now: float) -> list[EndpointRow]:
    """What a send needs of these endpoints."""
    known = t.directory.endpoints
    return [
        EndpointRow(
            e.id,
            e.address.value,
            e.address.kind,
            e.address.group,
            e.registered_at,
            e.generation,
            e.state.value,
            max((at for each in t.holding.get(id, {}).values() if (at := each.due_at) > now), default=0.0),
        )
        for id in ids
        if (e := known.get(id)) is not None
    ]


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
        note.halted,  # type: ignore[arg-type]
    )


def status(t: Tables, note: Note, now: float) -> Status:
    """The notification's state of affairs."""
    sub = note.sub
    reasons: dict[str, dict[str, int]] = {}
    for code, n in note.ended.items():
        state, reason = note.codes.pair(code)
        reasons.setdefault(state, {})[reason] = n
    if note.unexpanded:
        reasons.setdefault(DeliveryState.EXPIRED.value, {})[UNEXPANDED] = 0
    return Status(
        id=sub.id,
        app=sub.app,
        state=note.state,
        total=None if note.expansions else note.total,
        counts=note.counts,
        pending_by_reason=_pending(t, note, now),
        reasons=reasons,
        attempts=note.attempts,
        accepted_at=sub.accepted_at,
        due_at=sub.due_at,
        expires_at=sub.expires_at,
        finished_at=note.finished_at,
        oldest_pending_at=sub.due_at if note.finished_at is None else None,
    )


def _pending(t: Tables, note: Note, now: float) -> dict[str, int]:
    app = note.sub.app
    gates = covering(t, app, now)
    pending: Counter[str] = Counter()
    for piece in note.pieces.values():
        if not piece.open:
            continue
        if piece.held(now):
            pending[_READY] += piece.open
        else:
            due = piece.back or piece.ready_at <= now
            word = _LANE if due else piece.waiting
            pending[_in_the_way(t, note, piece, gates) or word] += piece.open
    for retry in note.retries.values():
        word = _LANE if retry.due_at <= now else retry.waiting
        pending[_in_the_way(t, note, retry, gates) or word] += 1
    return dict(pending)


def _in_the_way(t: Tables, note: Note, what: Piece | Retry, gates: dict[str, str]) -> str:
    """What holds back more than this one, or nothing."""
    if note.paused or t.paused(note.sub.app, what.binding):
        return _PAUSED
    return gates.get(what.binding, "")


def _word(t: Tables, note: Note, what: Piece | Retry) -> str:
    """What it waits for, whatever the time and the gates."""
    if isinstance(what, Piece) and what.owner:
        return _LEASED
    if note.paused or t.paused(note.sub.app, what.binding):
        return _PAUSED
    return _LANE if isinstance(what, Piece) and what.back else what.waiting


def deliveries(t: Tables, note: Note, state: str | None, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(endpoint, state, reason) by endpoint."""
    found: list[tuple[int, str, str]] = []
    for piece in note.pieces.values():
        word = _word(t, note, piece)
        word = _READY if word == _LEASED else word
        for endpoint, code in zip(piece.ids, piece.states, strict=True):
            if code in (OPEN, MARKED, DOUBTFUL):
                found.append((endpoint, "pending", word))
            elif code != RETRIED:
                found.append((endpoint, *note.codes.pair(code)))
    found += [(retry.endpoint, "pending", _word(t, note, retry)) for retry in note.retries.values()]
    return [row for row in sorted(found) if row[0] > after and (state is None or row[1] == state)][:limit]


def outstanding(t: Tables, app: str | None) -> dict[str, int]:
    """Deliveries of unfinished notifications by what they wait for."""
    found: Counter[str] = Counter()
    for note in t.unfinished.values():
        if app is not None and note.sub.app != app:
            continue
        for piece in note.pieces.values():
            if piece.open:
                found[_word(t, note, piece)] += piece.open
        found.update(_word(t, note, retry) for retry in note.retries.values())
        for expansion in note.expansions:
            paused = note.paused or (expansion.binding is not None and t.paused(note.sub.app, expansion.binding))
            word = Waiting.SCHEDULED.value if expansion.binding is None else _READY
            found[_PAUSED if paused else word] += 1
    return dict(found)


def backlog(t: Tables, app: str) -> Backlog:
    """How much is unfinished."""
    notes = [note for note in t.unfinished.values() if note.sub.app == app]
    return Backlog(
        sum(note.total - note.settled + len(note.expansions) for note in notes),
        sum(len(note.sub.content) for note in notes),
        min((note.sub.due_at for note in notes), default=None),
    )


def superseded(t: Tables, note: Note, ids: array[int]) -> set[int]:
    """The endpoints that a later notification of its collapse key has too."""
    if note.sub.collapse_key is None:
        return set()
    rivals = t.collapsible[note.sub.app, note.sub.collapse_key]
    later = [each.target for each in rivals if each.row > note.row and not each.stopped]
    endpoints = [endpoint for id in ids if (endpoint := t.directory.endpoints.get(id)) is not None]
    return {
        endpoint.id
        for endpoint in endpoints
        if endpoint.app == note.sub.app
        and endpoint.state is EndpointState.ACTIVE
        and any(covers(target, endpoint) for target in later)
    }
