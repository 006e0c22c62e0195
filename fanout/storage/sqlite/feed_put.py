"""A put that writes into the feed: around the ordinary one, in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fanout.core.cursor import Cursor
from fanout.core.feed import CURSOR_SLOT, ITEM_SLOT, Audience, FeedChange, FeedPost, FeedWritten
from fanout.core.records import Put, Submission
from fanout.storage.sqlite import feed_writing
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.feed_items import identity

__all__ = ["put_with_feed"]

_Plain = Callable[[Db, Sequence[Submission], float], list[Put]]
_Replays = Callable[[Db, Sequence[Submission], float], set[int]]

_CURSOR = CURSOR_SLOT.encode()
_ITEM = ITEM_SLOT.encode()


def put_with_feed(db: Db, submissions: Sequence[Submission], now: float, plain: _Plain, replays: _Replays) -> list[Put]:
    """Store all of them or none, with their feed writes.

    The feed is written after the rest has been found in order, for nothing takes a write back; then what is pushed is told of it.
    """
    if isinstance(submissions[0].feed, FeedChange):
        return _change(db, submissions, submissions[0].feed, now, plain)
    again = replays(db, submissions, now)
    head = -1
    heads: dict[int, list[int]] = {}
    dropped: set[int] = set()
    for i, sub in enumerate(submissions):
        if sub.follows:
            heads[head].append(i)
            dropped |= {i} & ({i} if head in again else set())
        else:
            head = i
            heads[i] = []
    kept = [i for i in range(len(submissions)) if i not in dropped]
    answers = [Put(dropped=True) for _ in submissions]
    for i, answer in zip(kept, plain(db, [submissions[i] for i in kept], now), strict=True):
        answers[i] = answer
    if any(answer.refused or answer.conflict for answer in answers):
        return [Put() if answer.dropped else answer for answer in answers]
    for i, followers in heads.items():
        sub = submissions[i]
        if not isinstance(sub.feed, FeedPost):
            continue
        if answers[i].replayed:
            written = feed_writing.posted(db, sub, answers[i].id)
        else:
            written = feed_writing.post(db, sub, sub.feed, now)
            _tell(db, [submissions[n] for n in (i, *followers) if answers[n].id], written)
        answers[i] = replace(answers[i], feed=written)
    return answers


def _change(db: Db, submissions: Sequence[Submission], change: FeedChange, now: float, plain: _Plain) -> list[Put]:
    head = submissions[0]
    written, item, endpoint = feed_writing.decide(db, head, change, now)
    if written.problem:
        return [Put(feed=written), *(Put() for _ in submissions[1:])]
    if item is None:
        return [Put(dropped=True, feed=written), *(Put(dropped=True) for _ in submissions[1:])]
    others = [
        replace(sub, audience=replace(sub.audience or Audience(), exclude=endpoint)) if endpoint else sub
        for sub in submissions
    ]
    answers = plain(db, others, now)
    if not any(answer.refused or answer.conflict for answer in answers):
        written = feed_writing.write(db, head, written)
        _tell(db, [sub for sub, answer in zip(submissions, answers, strict=True) if answer.id], written)
        answers[0] = replace(answers[0], feed=written)
    return answers


def _tell(db: Db, parts: Sequence[Submission], written: FeedWritten) -> None:
    """Fill the slots of what is pushed, and note which item a fallback goes with."""
    cursor = str(Cursor(identity(db), written.seq)).encode()
    rows: list[list[Any]] = []
    for part in parts:
        content = part.content.replace(_CURSOR, cursor).replace(_ITEM, written.id.encode())
        if content != part.content:
            rows.append([part.id, content.hex()])
    db.many(
        "UPDATE notification SET content = unhex(j.value->>1) FROM jsonb_each(?) j WHERE notification.uuid = j.value->>0",
        rows,
    )
    fallbacks = [part.id for part in parts if part.audience is not None and part.audience.unseen]
    if fallbacks and written.item is not None:
        db.many(
            "INSERT INTO feed_fallback (notification, item, seq) SELECT n.id, j.value->>1, j.value->>2 "
            "FROM jsonb_each(?) j CROSS JOIN notification n ON n.uuid = j.value->>0",
            [[id, written.item.number, written.seq] for id in fallbacks],
        )
