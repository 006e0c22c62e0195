"""A put that writes into the feed: around the ordinary one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fanout.core.cursor import Cursor
from fanout.core.endpoint import Endpoint
from fanout.core.feed import (
    CURSOR_SLOT,
    ITEM_SLOT,
    PUSHES,
    FeedBulk,
    FeedChange,
    FeedItem,
    FeedPost,
    FeedWritten,
    post_digest,
)
from fanout.core.records import Put, Submission
from fanout.storage.feed_changes import Decided, judge, judge_all, numbered
from fanout.storage.feed_posts import repeats
from fanout.storage.feed_put import excluding, problem, refused
from tests.oracle.feed_items import find, page
from tests.oracle.feed_tables import Entry
from tests.oracle.tables import Tables

__all__ = ["admits", "narrow", "put_with_feed", "write_tombstones"]

_Plain = Callable[[Sequence[Submission]], list[Put]]


def put_with_feed(
    t: Tables, submissions: Sequence[Submission], now: float, plain: _Plain, keys_after: float
) -> list[Put]:
    """Store all of them or none, with their feed writes. Idempotency keys of before `keys_after` are forgotten."""
    if isinstance(submissions[0].feed, FeedChange | FeedBulk):
        return _change(t, submissions, submissions[0].feed, now, plain)
    head = -1
    heads: dict[int, list[int]] = {}
    kept: list[int] = []
    for i, sub in enumerate(submissions):
        if not sub.follows:
            head = i
            heads[i] = []
        elif not _replayed(t, submissions, head, keys_after):
            heads[head].append(i)
        else:
            continue
        kept.append(i)
    fresh = [
        (i, sub, sub.feed)
        for i, sub in enumerate(submissions)
        if isinstance(sub.feed, FeedPost) and not _replayed(t, submissions, i, keys_after)
    ]
    same = _repeats(t, fresh, now)
    kept = [i for i in kept if i not in same and all(i not in heads[each] for each in same)]
    answers = [Put(dropped=True) for _ in submissions]
    for i, answer in zip(kept, plain([submissions[i] for i in kept]), strict=True):
        answers[i] = answer
    if refused(answers):
        return [Put() if answer.dropped else answer for answer in answers]
    numbers = {i: t.feed.next_seq(1 if post.external_id is None else 2) for i, _, post in fresh}
    for i, sub, post in fresh:
        if i in same:
            answers[i] = replace(answers[i], feed=_again(t, sub, post, numbers[i], now))
            continue
        ids = [submissions[n].id for n in (i, *heads[i])]
        written = _post(t, sub, post, numbers[i], now, ids)
        _tell(t, [submissions[n].id for n in (i, *heads[i]) if answers[n].id], written)
        answers[i] = replace(answers[i], feed=written)
    for i in heads.keys() - numbers.keys():
        if isinstance(submissions[i].feed, FeedPost):
            answers[i] = replace(answers[i], feed=_posted(t, submissions[i], answers[i].id))
    return answers


def _replayed(t: Tables, submissions: Sequence[Submission], head: int, keys_after: float) -> bool:
    sub = submissions[head]
    if sub.idempotency_key is None:
        return False
    earlier = t.keys.get((sub.app, sub.idempotency_key))
    if earlier is not None and earlier[2] >= keys_after:
        return earlier[1] == sub.digest
    before = (each for each in submissions[:head] if (each.app, each.idempotency_key) == (sub.app, sub.idempotency_key))
    first = next(before, None)
    return first is not None and first.digest == sub.digest


# -- changes


def _change(
    t: Tables, submissions: Sequence[Submission], change: FeedChange | FeedBulk, now: float, plain: _Plain
) -> list[Put]:
    head = submissions[0]
    written, changed, endpoint = _decide(t, head, change, now)
    unmade = problem(submissions, written)
    if unmade is not None:
        return unmade
    answers = plain([excluding(sub, endpoint) for sub in submissions])
    if not refused(answers):
        (user,) = head.target.names
        written, items = numbered(written, changed, t.feed.next_seq(len(changed)))
        for item in items:
            entry = t.feed.items[item.number]
            if entry.user:
                forget = isinstance(change, FeedChange) and change.withdraw
                entry.digest = None if forget else entry.digest
                entry.item = item if item.deleted else replace(item, content=entry.item.content)
            else:
                entry.states[user] = item if item.deleted else replace(item, content=entry.item.content)
        _tell(t, [answer.id for answer in answers if answer.id], written)
        answers[0] = replace(answers[0], feed=written)
    return answers


def _decide(t: Tables, head: Submission, change: FeedChange | FeedBulk, now: float) -> Decided:
    (user,) = head.target.names
    device: tuple[int, int] | None = (0, 0)
    if change.writer:
        known = next((each for each in t.feed.subscriptions.values() if each.unsid == change.writer), None)
        mine = known is not None and (known.app, known.user) == (head.app, user)
        device = (known.id, known.endpoint) if known is not None and mine else None
    if isinstance(change, FeedBulk):
        return judge_all(change, page(t, head.app, user, change.query, now), device, now)
    found = find(t, head.app, user, change.item, now, deleted=change.delete)
    return judge(change, None if found is None else found[1], device, now)


# -- posts


def _places(sub: Submission) -> list[tuple[str, str | None]]:
    """(user, topic) of each item that the post comes to."""
    if sub.target.kind in ("user", "users"):
        return [(user, None) for user in sub.target.names]
    return [("", sub.target.names[0] if sub.target.kind == "topic" else None)]


def _held(t: Tables, app: str, place: tuple[str, str | None], external: str | None, now: float) -> Entry | None:
    """What a post there may repeat: the item that is active, or else the latest that its user has deleted."""
    found = [
        entry
        for entry in t.feed.items.values()
        if (entry.app, entry.user, entry.topic, entry.item.external_id) == (app, *place, external)
        and (not entry.item.deleted or entry.digest is not None)
    ]
    held = max(found, key=lambda entry: (not entry.item.deleted, entry.item.number), default=None)
    return held if held is not None and held.item.expires_at > now else None


def _repeats(t: Tables, fresh: Sequence[tuple[int, Submission, FeedPost]], now: float) -> set[int]:
    """In which of these posts nothing is new, each after the ones before it."""
    digests: dict[tuple[object, ...], str | None] = {}
    same = set()
    for i, sub, post in fresh:
        if post.external_id is None:
            continue
        places = [(sub.app, place, post.external_id) for place in _places(sub)]
        for place in places:
            if place not in digests:
                held = _held(t, *place, now)
                digests[place] = None if held is None else held.digest
        if repeats(sub, post, [digests[place] for place in places]):
            same.add(i)
        else:
            digests.update(dict.fromkeys(places, post_digest(post) if post.expires_at > now else None))
    return same


def _again(t: Tables, sub: Submission, what: FeedPost, seq: int, now: float) -> FeedWritten:
    """Nothing is new: the expiry moves. There is a place at least."""
    entries = [_held(t, sub.app, place, what.external_id, now) for place in _places(sub)]
    for entry in entries:
        assert entry is not None
        former = entry.item
        entry.item = replace(
            former, expires_at=what.expires_at, modified_at=now, seq=former.seq if former.deleted else seq
        )
        entry.states = {
            user: replace(state, expires_at=what.expires_at, seq=seq) for user, state in entry.states.items()
        }
        for id, (other, number) in t.feed.fallbacks.items():
            if other is entry and number == former.seq:
                t.feed.fallbacks[id] = (entry, entry.item.seq)
    assert entries[-1] is not None
    item = entries[-1].item
    many = sub.target.kind == "users"
    return FeedWritten(item=None if many else item, id=item.id, seq=item.seq, replaced=True, changed=False)


def _post(t: Tables, sub: Submission, what: FeedPost, seq: int, now: float, ids: Sequence[str]) -> FeedWritten:
    target = sub.target
    many = target.kind == "users"
    users = list(target.names) if target.kind in ("user", "users") else [""]
    topic = target.names[0] if target.kind == "topic" else None
    known = None if what.external_id is None else _known(t, sub.app, users, topic, what.external_id, many, seq - 1, now)
    item = FeedItem(
        id=sub.id if known is None else known.item.id,
        number=0 if known is None else known.item.number,
        seq=seq,
        external_id=what.external_id,
        group=what.group,
        priority=what.priority,
        content=what.content,
        created_at=now if known is None else known.item.created_at,
        modified_at=None if known is None else now,
        expires_at=what.expires_at,
        display_until=what.display_until,
        fallback_at=what.fallback_at,
        broadcast=users == [""],
    )
    digest = None if what.external_id is None else post_digest(what)
    pushes = () if many else tuple(ids)
    if known is not None:
        known.item, known.digest = item, digest
        known.pushes = (*known.pushes, *pushes)[-PUSHES:]
        known.states.clear()
        known.seen.clear()
    else:
        for user in users:
            t.feed.last_item += 1
            item = replace(item, number=t.feed.last_item)
            t.feed.items[item.number] = Entry(sub.app, user, topic, item, digest, pushes[-PUSHES:])
    return FeedWritten(item=None if many else item, id=item.id, seq=seq, replaced=known is not None)


def _known(
    t: Tables, app: str, users: list[str], topic: str | None, external: str, many: bool, grave: int, now: float
) -> Entry | None:
    """The one that is to be replaced. One that has expired, or that is one of many users', becomes a tombstone of
    number `grave`."""
    found = [
        entry
        for entry in t.feed.items.values()
        if (entry.app, entry.topic, entry.item.external_id) == (app, topic, external)
        and entry.user in users
        and not entry.item.deleted
    ]
    if found and not many and found[0].item.expires_at > now:
        return found[0]
    for entry in found:
        write_tombstones(entry, grave, now)
    return None


def write_tombstones(entry: Entry, seq: int, now: float) -> None:
    """It becomes a tombstone, for everybody."""
    entry.item = replace(entry.item, content=b"", deleted=True, modified_at=now, writer=0, seq=seq)
    entry.digest, entry.pushes = None, ()
    entry.states.clear()


def _posted(t: Tables, sub: Submission, id: str) -> FeedWritten:
    """What an earlier post of that id came to, as things stand now."""
    assert isinstance(sub.feed, FeedPost)
    user = sub.target.names[0] if sub.target.kind in ("user", "users") else ""
    external = sub.feed.external_id
    found = [
        entry.item
        for entry in t.feed.items.values()
        if (entry.app, entry.user) == (sub.app, user)
        and (
            entry.item.id == id
            or (external is not None and entry.item.external_id == external and not entry.item.deleted)
        )
    ]
    item = max(found, key=lambda item: (item.id == id, item.number), default=None)
    return FeedWritten(
        item=None if sub.target.kind == "users" else item,
        id=item.id if item else id,
        seq=item.seq if item else 0,
        changed=False,
    )


def _tell(t: Tables, parts: Sequence[str], written: FeedWritten) -> None:
    """Fill the slots of what is pushed, and note which item a fallback goes with."""
    cursor = str(Cursor(t.feed.identity, written.seq)).encode()
    for id in parts:
        note = t.notes[id]
        content = note.sub.content.replace(CURSOR_SLOT.encode(), cursor).replace(
            ITEM_SLOT.encode(), written.id.encode()
        )
        note.sub = replace(note.sub, content=content)
        if note.sub.audience is not None and note.sub.audience.unseen and written.item is not None:
            t.feed.fallbacks[id] = (t.feed.items[written.item.number], written.seq)


# -- audiences


def narrow(t: Tables, sub: Submission, found: dict[str, list[int]], now: float, *, due: bool) -> dict[str, list[int]]:
    """Of the endpoints found, by binding, those that the submission's audience admits, and the bindings that have such.

    What has been fetched is looked at when a schedule is `due`.
    """
    audience = sub.audience
    if audience is None:
        return found
    without = {audience.exclude}
    if audience.unseen and due:
        entry, seq = t.feed.fallbacks.get(sub.id, (None, 0))
        if entry is None or entry.item.seq != seq or entry.item.deleted or entry.item.expires_at <= now:
            return {}
        without |= {t.feed.subscriptions[id].endpoint for id in entry.seen if id in t.feed.subscriptions}
    kept: dict[str, list[int]] = {}
    for binding, ids in found.items():
        for id in ids:
            endpoint = t.directory.endpoints[id]
            if endpoint.expires_at is not None and endpoint.expires_at <= now:
                continue
            if id not in without and admits(t, sub, endpoint):
                kept.setdefault(binding, []).append(id)
    return kept


def admits(t: Tables, sub: Submission, endpoint: Endpoint) -> bool:
    """Whether the submission is for an endpoint of its target, fetched or not."""
    audience = sub.audience
    return audience is None or (
        endpoint.id != audience.exclude
        and audience.admits(t.feed.receive.get(endpoint.id, "push"), endpoint.platform, endpoint.binding)
    )
