"""Feed items read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fanout.core.counts import Counts
from fanout.core.feed import SHARED, FeedItem, FeedPage, FeedQuery, Touched, user_digest
from tests.oracle.feed_tables import Entry
from tests.oracle.tables import Tables

__all__ = ["counts", "find", "mark_seen", "mine", "page", "touched"]


def topics(t: Tables, app: str, user: str) -> set[str]:
    """Those that the user's devices are in."""
    known = (t.directory.endpoints.get(id) for id in t.directory.users.get((app, user), ()))
    return {
        tag for each in known if each is not None and each.state in ("active", "gone", "expired") for tag in each.tags
    }


def mine(t: Tables, app: str, user: str) -> Iterator[tuple[Entry, FeedItem]]:
    """Everything of the user's feed, as it is for her."""
    member = topics(t, app, user)
    for entry in t.feed.items.values():
        if entry.app != app or entry.user not in ("", user) or (entry.topic is not None and entry.topic not in member):
            continue
        yield entry, entry.states.get(user, entry.item)


def page(t: Tables, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
    """A page of it."""
    found = [item for _, item in mine(t, app, user) if item.seq <= query.until and _fits(item, query, now)]
    if query.newest_before is not None:
        found = [item for item in found if item.number < query.newest_before]
        found.sort(key=lambda item: -item.number)
    else:
        found = [item for item in found if item.seq > query.after]
        found.sort(key=lambda item: item.seq)
    items = tuple(item if query.content else replace(item, content=b"") for item in found[: query.limit])
    more = len(found) > query.limit
    erased = t.feed.erased.get((app, user_digest(user)), (0, 0.0))[0]
    return FeedPage(
        items=items,
        seq=items[-1].seq if more and query.newest_before is None else min(t.feed.seq, query.until),
        more=more,
        head=t.feed.seq,
        floor=max(t.feed.floor, erased),
        topics=tuple(sorted(topics(t, app, user))),
    )


def _fits(item: FeedItem, query: FeedQuery, now: float) -> bool:
    if query.group not in (None, item.group):
        return False
    if query.ids is not None and item.id not in query.ids and item.external_id not in query.ids:
        return False
    if item.deleted:
        return query.status != "active"
    return (
        query.status != "deleted"
        and item.expires_at > now
        and query.unread in (None, not item.read)
        and query.action in (None, item.action)
    )


def find(
    t: Tables, app: str, user: str, id: str, now: float, *, deleted: bool = False
) -> tuple[Entry, FeedItem] | None:
    """One item by its own id, also a tombstone; else an active one by its sender's, the latest. With `deleted` and
    where none is active, the user's latest tombstone of that sender's id."""
    known = [(entry, item) for entry, item in mine(t, app, user) if _there(entry, item, now)]
    own = [each for each in known if each[1].id == id]
    if own:
        return max(own, key=lambda each: each[1].number)
    # Of all that are active for everybody, not only for her: one that she has deleted does not make room for an older
    # one.
    theirs = [each for each in known if each[1].external_id == id and not each[0].item.deleted]
    if deleted and not theirs:
        theirs = [each for each in known if each[1].external_id == id]
    if not theirs:
        return None
    latest = max(theirs, key=lambda each: each[1].number)
    return None if latest[1].deleted and not deleted else latest


def _there(entry: Entry, item: FeedItem, now: float) -> bool:
    return entry.item.deleted or item.expires_at > now


def counts(t: Tables, app: str, user: str, now: float) -> Counts:
    """Of what is there for the user."""
    seen = t.feed.looked.get((app, user), (0, 0))[0]
    there = [item for _, item in mine(t, app, user) if not item.deleted and item.expires_at > now]
    return Counts(
        unread=sum(not item.read for item in there),
        unseen=sum(item.number > seen for item in there),
        seen=seen,
        seq=t.feed.seq,
    )


def mark_seen(t: Tables, app: str, user: str, item: str | None, now: float) -> Counts | None:
    """She has seen her feed up to that item, or to the newest."""
    number = max(t.feed.items, default=0)
    if item is not None:
        found = find(t, app, user, item, now)
        if found is None:
            return None
        number = found[1].number
    if number > t.feed.looked.get((app, user), (0, 0))[0]:
        t.feed.looked[app, user] = (number, t.feed.next_seq())
        t.changes += 1
    return counts(t, app, user, now)


def touched(t: Tables, after: int) -> Touched:
    """Whose feeds have changed."""
    users = {(entry.app, entry.user) for entry in t.feed.items.values() if entry.item.seq > after}
    for entry in t.feed.items.values():
        users |= {(entry.app, user) for user, state in entry.states.items() if state.seq > after}
    users |= {place for place, (_, seq) in t.feed.looked.items() if seq > after}
    erased = {place for place, (seq, _) in t.feed.erased.items() if seq > after}
    shared = [
        (entry.app, entry.topic, entry.item)
        for entry in t.feed.items.values()
        if not entry.user and entry.item.seq > after
    ]
    shared.sort(key=lambda each: each[2].seq)
    return Touched(
        head=t.feed.seq,
        users=frozenset(users),
        erased=frozenset(erased),
        shared=tuple(shared) if len(shared) <= SHARED else None,
    )
