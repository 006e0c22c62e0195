"""Put and expand: from a submission to chunks, at once or when its time has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.core.codec import digest
from fanout.core.model import Target
from fanout.core.records import Put, Submission
from fanout.plugin import StorageContext
from tests.oracle import directory
from tests.oracle.feed_writing import admits, narrow, put_with_feed
from tests.oracle.lanes import Lane
from tests.oracle.pieces import add_piece
from tests.oracle.stop import stop
from tests.oracle.tables import Expansion, Note, Piece, Tables, binding_tables, finish

__all__ = ["expand", "put"]

_AT_ONCE = 4
"""Chunks of one target on one binding that `put` makes due: the rest take turns with others."""
_STARTS = 1000
"""Schedules that one call of `expand` begins at most."""


def put(t: Tables, context: StorageContext, submissions: Sequence[Submission], now: float) -> list[Put]:
    """Store all of them or none."""
    if any(sub.feed is not None or sub.follows for sub in submissions):
        keys_after = now - context.retention.idempotency_keys
        return put_with_feed(t, submissions, now, lambda subs: _put(t, context, subs, now), keys_after)
    return _put(t, context, submissions, now)


def _put(t: Tables, context: StorageContext, submissions: Sequence[Submission], now: float) -> list[Put]:
    answers = [Put() for _ in submissions]
    batch: dict[tuple[str, str], Submission] = {}
    fresh: list[tuple[int, Submission]] = []
    replays: list[tuple[int, str]] = []
    for i, sub in enumerate(submissions):
        key = (sub.app, sub.idempotency_key) if sub.idempotency_key is not None else None
        if key is not None:
            earlier = t.keys.get(key)
            if earlier and now - earlier[2] > context.retention.idempotency_keys:
                earlier = None
            if earlier is None and key in batch:
                earlier = (batch[key].id, batch[key].digest, now)
            if earlier is not None:
                if earlier[1] == sub.digest:
                    replays.append((i, earlier[0]))
                else:
                    answers[i] = Put(conflict=earlier[0])
                continue
            batch[key] = sub
        touched = set(_found(t, sub, sub.target, now))
        if sub.target.kind == "addresses":
            touched.add(sub.target.binding)
        refused = sorted(touched & sub.refused)
        if refused:
            answers[i] = Put(refused=refused[0])
        fresh.append((i, sub))
    if not any(answer.refused or answer.conflict for answer in answers):
        targets = [_target(t, sub, now) for _, sub in fresh]
        for (i, sub), target in zip(fresh, targets, strict=True):
            if sub.optional and not _found(t, sub, target, now):
                answers[i] = Put(dropped=True)
                continue
            waiting = _joined(t, sub)
            if waiting is not None:
                waiting.sub = replace(waiting.sub, content=sub.joins)
                answers[i] = Put(id=waiting.sub.id, joined=True)
                continue
            answers[i] = _accept(t, context, sub, target, now)
        for i, id in replays:
            note = t.notes.get(id)
            answers[i] = Put(id=id, total=None if note is None or note.expansions else note.total, replayed=True)
    else:
        for i, id in replays:
            # A replay of something in this batch, of which nothing is stored, is a replay of nothing.
            if all(sub.id != id for _, sub in fresh):
                answers[i] = Put(id=id, replayed=True)
    return answers


def _found(t: Tables, sub: Submission, target: Target, now: float, *, due: bool = False) -> dict[str, list[int]]:
    """The endpoints of an explicit target that the submission is for, by binding; of a topic or all, those of
    everybody."""
    found = directory.audience(t, sub.app, target)
    return found if target.kind in ("topic", "all") else narrow(t, sub, found, now, due=due)


def _target(t: Tables, sub: Submission, now: float) -> Target:
    """Explicit addresses are the endpoints that they belong to at acceptance, even of what is due later."""
    if sub.target.kind != "addresses":
        return sub.target
    return Target.endpoints(directory.intern(t, sub.app, sub.target.binding, sub.target.addresses, now))


def _joined(t: Tables, sub: Submission) -> Note | None:
    """The one that it joins, whose time has not come."""
    if not sub.joins or sub.collapse_key is None:
        return None
    older = t.collapse.get((sub.app, sub.collapse_key, digest(b"", sub.target, None)))
    waits = (
        older is not None and older.finished_at is None and not older.stopped and older in t.schedules.get(sub.app, ())
    )
    return older if waits else None


def _accept(t: Tables, context: StorageContext, sub: Submission, target: Target, now: float) -> Put:
    t.last_note += 1
    note = Note(t.last_note, sub, target)
    superseded: tuple[str, ...] = ()
    if sub.collapse_key is not None:
        place = (sub.app, sub.collapse_key, digest(b"", sub.target, None))
        older = t.collapse.get(place)
        if older is not None and older.finished_at is None and not older.stopped:
            stop(t, context, older, "superseded", now)
            superseded = (older.sub.id,)
            if sub.joins:
                note.sub = replace(sub, content=sub.joins)
        t.collapse[place] = note
        t.collapsible.setdefault((sub.app, sub.collapse_key), []).append(note)
    if sub.idempotency_key is not None:
        t.keys[sub.app, sub.idempotency_key] = (sub.id, sub.digest, now)
    t.notes[sub.id] = t.unfinished[sub.id] = note
    if sub.due_at > now:
        note.expansions.append(Expansion(None, sub.due_at))
        t.schedules.setdefault(sub.app, []).append(note)
    else:
        _begin(t, context, note, now, due=False)
    return Put(id=sub.id, total=None if note.expansions else note.total, superseded=superseded)


def _begin(t: Tables, context: StorageContext, note: Note, now: float, *, due: bool) -> int:
    """The audience of this moment as chunks, or as an expansion per binding; how many chunks."""
    made = 0
    sub = note.sub
    for binding, ids in _found(t, sub, note.target, now, due=due).items():
        if note.target.kind in ("topic", "all"):
            expansion = Expansion(binding, sub.due_at, high=t.directory.last_id)
            note.expansions.append(expansion)
            binding_tables(t, sub.app, binding)[sub.lane].expansions.append((note, expansion))
            continue
        made += _cut_all(t, context, note, binding, ids, now)
        note.total += len(ids)
    finish(t, note, now)
    return made


def _cut_all(t: Tables, context: StorageContext, note: Note, binding: str, ids: Sequence[int], now: float) -> int:
    """All chunks of an explicit target on one binding; how many of them are due."""
    due_at = note.sub.due_at
    back: list[Piece] = []
    made = 0
    for start in range(0, len(ids), context.chunk):
        part = ids[start : start + context.chunk]
        wait = made == _AT_ONCE
        piece = add_piece(t, note, binding, part, attempt=1, at=due_at, cut_at=now, back=wait)
        if wait:
            back.append(piece)
        else:
            made += 1
    if back:
        turns = Expansion(binding, due_at, pieces=back)
        note.turns.append(turns)
        binding_tables(t, note.sub.app, binding)[note.sub.lane].expansions.append((note, turns))
    return made


def expand(t: Tables, context: StorageContext, app: str, binding: str, now: float, ahead: int) -> int:
    """Begin the schedules that are due, then make chunks of expansions due, each in turn, until `ahead` wait in the
    lane."""
    if t.paused(app, binding):
        return 0
    made = 0
    due = [note for note in t.schedules.get(app, ()) if note.sub.due_at <= now and not note.paused]
    for note in sorted(due, key=lambda note: (note.sub.lane, note.sub.due_at))[:_STARTS]:
        t.schedules[app].remove(note)
        note.expansions.clear()
        t.changes += 1
        made += _begin(t, context, note, now, due=True)
    for lane in binding_tables(t, app, binding):
        room = ahead - lane.due(now)
        while room > 0 and (expansions := lane.expandable(now)):
            for note, expansion in expansions[:room]:
                if expansion.pieces:
                    made += _let_go(t, lane, note, expansion, now)
                else:
                    made += _cut(t, context, lane.expansions, note, expansion, now)
                room -= 1
    return made


def _let_go(t: Tables, lane: Lane, note: Note, turns: Expansion, now: float) -> int:
    """The next chunk that was held back is due."""
    piece = turns.pieces.pop(0)
    piece.back = False
    piece.ready_at = now
    lane.push(piece)
    if not turns.pieces:
        note.turns.remove(turns)
        lane.expansions.remove((note, turns))
    t.changes += 1
    return 1


def _cut(
    t: Tables,
    context: StorageContext,
    expansions: list[tuple[Note, Expansion]],
    note: Note,
    expansion: Expansion,
    now: float,
) -> int:
    """One chunk from an expansion, which ends with its last one."""
    assert expansion.binding is not None
    target = note.target
    ids: list[int] = []
    for endpoint in t.open_endpoints(note.sub.app, expansion.binding):
        if endpoint.id <= expansion.cursor or (target.kind == "topic" and target.names[0] not in endpoint.tags):
            continue
        if endpoint.id > expansion.high or len(ids) == context.chunk:
            break
        if not admits(t, note.sub, endpoint):
            continue
        ids.append(endpoint.id)
    if ids:
        expansion.cursor = ids[-1]
        note.total += len(ids)
        # Due from now and not from when it was sent: it would go before all later sends.
        add_piece(t, note, expansion.binding, ids, attempt=1, at=now, cut_at=now)
    if len(ids) < context.chunk:
        note.expansions.remove(expansion)
        expansions.remove((note, expansion))
        t.changes += 1
        finish(t, note, now)
    return 1 if ids else 0
