"""Running out of time and out of retention."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from fanout.core.audit import is_audit
from fanout.core.endpoint import EndpointState
from fanout.core.records import Expired
from fanout.plugin import StorageContext
from tests.oracle import directory, feed_tidy
from tests.oracle.stop import end_open
from tests.oracle.tables import Note, Tables, finish

__all__ = ["expire", "prune"]


def expire(t: Tables, context: StorageContext, now: float, limit: int) -> Expired:
    """End what waits past its time, and endpoints past theirs, up to about `limit`; how many."""
    done = directory.expire(t, now, limit)
    past = [note for note in t.unfinished.values() if note.sub.expires_at <= now]
    unexpanded: Counter[str] = Counter()
    for note in sorted(past, key=lambda note: (note.sub.expires_at, note.row)):
        if done >= limit:
            break
        unexpanded[note.sub.app] += bool(note.expansions and not note.stopped)
        done += end_open(t, context, note, note.stopped or "expired", "" if note.stopped else "ttl", now, limit - done)
        finish(t, note, now)
    done += feed_tidy.expire(t, now, limit - done)
    t.changes += bool(past or done)
    return Expired(done, +unexpanded)


def prune(t: Tables, context: StorageContext, now: float, limit: int) -> int:
    """Delete up to `limit` rows whose retention is over."""
    keep = context.retention
    left = limit
    over = [note for note in t.notes.values() if _over(note, now - keep.notifications)]
    for note in sorted(over, key=lambda note: (note.finished_at, note.row)):
        if left <= 0:
            break
        for piece in list(islice(note.pieces.values(), left)):
            del note.pieces[piece.id], t.pieces[piece.id]
            left -= 1
        if left > 0 and not note.pieces:
            _forget(t, note)
            left -= 1
    keys = [(at, key) for key, (_, _, at) in t.keys.items() if at < now - keep.idempotency_keys]
    for _, key in sorted(keys)[:left]:
        del t.keys[key]
        left -= 1
    left -= _prune_endpoints(t, now - keep.quarantine, left)
    old = _prune_events(t, now - keep.events, left, audit=False)
    old += _prune_events(t, now - keep.audit, left - old, audit=True)
    for place in [place for place, note in t.collapse.items() if note.finished_at is not None]:
        del t.collapse[place]
    left -= old
    left -= feed_tidy.prune(t, context, now, left)
    t.changes += limit > left
    return limit - left


def _prune_events(t: Tables, before: float, limit: int, *, audit: bool) -> int:
    first = islice((event for event in t.events if is_audit(event.kind) is audit), max(limit, 0))
    over = {event.id for event in first if event.at < before}
    t.events = [event for event in t.events if event.id not in over]
    return len(over)


def _forget(t: Tables, note: Note) -> None:
    del t.notes[note.sub.id]
    if note.sub.collapse_key is not None:
        place = (note.sub.app, note.sub.collapse_key)
        t.collapsible[place].remove(note)
        if not t.collapsible[place]:
            del t.collapsible[place]


def _over(note: Note, before: float) -> bool:
    return note.finished_at is not None and note.finished_at < before


def _prune_endpoints(t: Tables, before: float, limit: int) -> int:
    d = t.directory
    over = [
        (endpoint.state_at or 0.0, endpoint.id)
        for endpoint in d.endpoints.values()
        if endpoint.state is not EndpointState.ACTIVE and (endpoint.state_at or 0.0) < before
    ]
    for _, id in sorted(over)[:limit]:
        endpoint = d.endpoints[id]
        del d.endpoints[endpoint.id]
        place = (endpoint.app, endpoint.binding, endpoint.address.digest)
        d.known.get((*place, endpoint.user), set()).discard(endpoint.id)
        d.users[endpoint.app, endpoint.user].remove(endpoint.id)
        d.audiences[endpoint.app, endpoint.binding].remove(endpoint.id)
    return len(over[:limit])
