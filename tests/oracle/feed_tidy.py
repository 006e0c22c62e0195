"""What time and erasure take out of the feed."""

from __future__ import annotations

from fanout.core.feed import user_digest
from fanout.plugin import StorageContext
from tests.oracle.feed_subscriptions import drop
from tests.oracle.feed_writing import write_tombstones
from tests.oracle.tables import Tables

__all__ = ["erase", "expire", "prune"]


def expire(t: Tables, now: float, limit: int) -> int:
    """Items past their time become tombstones, each with a number of its own; how many."""
    due = [entry for entry in t.feed.items.values() if not entry.item.deleted and entry.item.expires_at <= now]
    due.sort(key=lambda entry: (entry.item.expires_at, entry.item.number))
    for entry in due[: max(limit, 0)]:
        write_tombstones(entry, t.feed.next_seq(), now)
    return len(due[: max(limit, 0)])


def prune(t: Tables, context: StorageContext, now: float, limit: int) -> int:
    """Delete up to `limit` tombstones, expired subscriptions and marks of erasure whose retention is over; how many."""
    keep = context.retention
    over = [
        entry
        for entry in t.feed.items.values()
        if entry.item.deleted and (entry.item.modified_at or 0.0) < now - keep.tombstones
    ]
    over.sort(key=lambda entry: (entry.item.modified_at, entry.item.number))
    gone = over[: max(limit, 0)]
    for entry in gone:
        del t.feed.items[entry.item.number]
        t.feed.floor = max(t.feed.floor, entry.item.seq)
    t.feed.fallbacks = {id: each for id, each in t.feed.fallbacks.items() if each[0] not in gone}
    done = len(gone)
    old = sorted(each.id for each in t.feed.subscriptions.values() if each.expires_at < now - keep.quarantine)
    old = old[: max(limit - done, 0)]
    drop(t, old)
    done += len(old)
    marks = sorted((seq, place) for place, (seq, at) in t.feed.erased.items() if at < now - keep.tombstones)
    for seq, place in marks[: max(limit - done, 0)]:
        del t.feed.erased[place]
        t.feed.floor = max(t.feed.floor, seq)
        done += 1
    return done


def erase(t: Tables, app: str, user: str, now: float) -> None:
    """Forget the user's items, states and subscriptions."""
    mine = [entry for entry in t.feed.items.values() if (entry.app, entry.user) == (app, user)]
    held = bool(mine)
    for entry in mine:
        del t.feed.items[entry.item.number]
    t.feed.fallbacks = {id: each for id, each in t.feed.fallbacks.items() if each[0] not in mine}
    for entry in t.feed.items.values():
        if entry.app == app and entry.states.pop(user, None) is not None:
            held = True
    drop(t, [each.id for each in t.feed.subscriptions.values() if (each.app, each.user) == (app, user)])
    t.feed.looked.pop((app, user), None)
    if held:
        t.feed.erased[app, user_digest(user)] = (t.feed.next_seq(), now)
