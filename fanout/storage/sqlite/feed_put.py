"""A put that writes into the feed: around the ordinary one, in the same transaction.

First it is found out what the writes will come to, numbers included, so that what is pushed can be told; then the ordinary put says
whether all is in order, for nothing takes a write back; then the feed is written. A refused put leaves a gap in the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fanout.core.cursor import Cursor
from fanout.core.feed import CURSOR_SLOT, ITEM_SLOT, Audience, FeedChange, FeedPost, FeedWritten
from fanout.core.records import Put, Submission
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.feed_changes import decide, write
from fanout.storage.sqlite.feed_posts import Posts, posted

__all__ = ["put_with_feed"]

_Plain = Callable[[Db, Sequence[Submission], float], list[Put]]
_Replays = Callable[[Db, Sequence[Submission], float], set[int]]

_CURSOR = CURSOR_SLOT.encode()
_ITEM = ITEM_SLOT.encode()


def put_with_feed(db: Db, submissions: Sequence[Submission], now: float, plain: _Plain, replays: _Replays) -> list[Put]:
    """Store all of them or none, with their feed writes."""
    if isinstance(submissions[0].feed, FeedChange):
        return _change(db, submissions, submissions[0].feed, now, plain)
    again = replays(db, submissions, now) if any(sub.idempotency_key is not None for sub in submissions) else set()
    fresh = [i for i, sub in enumerate(submissions) if isinstance(sub.feed, FeedPost) and i not in again]
    posts = Posts(db, now)
    written = dict(zip(fresh, posts.plan([submissions[i] for i in fresh]), strict=True))
    answers = [Put(dropped=True) for _ in submissions]
    kept: list[int] = []
    passed: list[Submission] = []
    fallbacks: list[tuple[Submission, FeedWritten]] = []
    head = -1
    for i, sub in enumerate(submissions):
        head = head if sub.follows else i
        if sub.follows and head in again:
            continue
        kept.append(i)
        told = written.get(head)
        passed.append(sub if told is None else _told(sub, told, posts.identity))
        if told is not None and sub.audience is not None and sub.audience.unseen:
            fallbacks.append((sub, told))
    for i, answer in zip(kept, plain(db, passed, now), strict=True):
        answers[i] = answer
    if any(answer.refused or answer.conflict for answer in answers):
        return [Put() if answer.dropped else answer for answer in answers]
    posts.write()
    for i, told in written.items():
        answers[i] = replace(answers[i], feed=told)
    for i in again:
        if isinstance(submissions[i].feed, FeedPost):
            answers[i] = replace(answers[i], feed=posted(db, submissions[i], answers[i].id))
    _remember(db, fallbacks)
    return answers


def _change(db: Db, submissions: Sequence[Submission], change: FeedChange, now: float, plain: _Plain) -> list[Put]:
    head = submissions[0]
    written, endpoint = decide(db, head, change, now)
    if written.problem:
        return [Put(feed=written), *(Put() for _ in submissions[1:])]
    if not written.changed:
        return [Put(dropped=True, feed=written), *(Put(dropped=True) for _ in submissions[1:])]
    seq, identity = db.json("UPDATE feed SET seq = seq + 1 RETURNING json_array(seq, identity)")
    assert written.item is not None
    written = replace(written, item=replace(written.item, seq=seq), seq=seq)
    passed = [_told(sub, written, identity, exclude=endpoint) for sub in submissions]
    answers = plain(db, passed, now)
    if not any(answer.refused or answer.conflict for answer in answers):
        write(db, head, written)
        answers[0] = replace(answers[0], feed=written)
    return answers


def _told(sub: Submission, written: FeedWritten, identity: int, *, exclude: int = 0) -> Submission:
    """The submission with its slots filled, and the writer's endpoint left out."""
    cursor = str(Cursor(identity, written.seq)).encode()
    content = sub.content.replace(_CURSOR, cursor).replace(_ITEM, written.id.encode())
    if exclude:
        return replace(sub, content=content, audience=replace(sub.audience or Audience(), exclude=exclude))
    return sub if content == sub.content else replace(sub, content=content)


def _remember(db: Db, fallbacks: Sequence[tuple[Submission, FeedWritten]]) -> None:
    """Which item, as it was posted, each scheduled fallback goes with."""
    rows: list[list[Any]] = [
        [sub.id, written.item.number, written.seq] for sub, written in fallbacks if written.item is not None
    ]
    db.many(
        "INSERT INTO feed_fallback (notification, item, seq) SELECT n.id, j.value->>1, j.value->>2 "
        "FROM jsonb_each(?) j CROSS JOIN notification n ON n.uuid = j.value->>0",
        rows,
    )
