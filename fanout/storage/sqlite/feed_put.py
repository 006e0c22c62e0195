"""A put that writes into the feed: around the ordinary one, in the same transaction.

First it is found out what the writes will come to, numbers included, so that what is pushed can be told; then the ordinary put says
whether all is in order, for nothing takes a write back; then the feed is written. A refused put gives its numbers back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fanout.core.feed import FeedBulk, FeedChange, FeedPost
from fanout.core.records import Put, Submission
from fanout.storage.feed_changes import numbered
from fanout.storage.feed_put import excluding, pass_on, posts_of, problem, pushes_of, refused, told
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.feed_changes import decide, write
from fanout.storage.sqlite.feed_posts import Posts, posted

__all__ = ["put_with_feed"]

_Plain = Callable[[Db, Sequence[Submission], float], list[Put]]
_Replays = Callable[[Db, Sequence[Submission], float], set[int]]


def put_with_feed(db: Db, submissions: Sequence[Submission], now: float, plain: _Plain, replays: _Replays) -> list[Put]:
    """Store all of them or none, with their feed writes."""
    if isinstance(submissions[0].feed, FeedChange | FeedBulk):
        return _change(db, submissions, submissions[0].feed, now, plain)
    again = replays(db, submissions, now) if any(sub.idempotency_key is not None for sub in submissions) else set()
    fresh = posts_of(submissions, again)
    posts = Posts(db, now)
    written = dict(zip(fresh, posts.plan([submissions[i] for i in fresh], pushes_of(submissions, fresh)), strict=True))
    same = {i for i, each in written.items() if not each.changed}
    parts = pass_on(submissions, again, written, posts.identity, same)
    answers = [Put(dropped=True) for _ in submissions]
    for i, answer in zip(parts.kept, plain(db, parts.passed, now), strict=True):
        answers[i] = answer
    if refused(answers):
        posts.give_back()
        return [Put() if answer.dropped else answer for answer in answers]
    posts.write()
    for i, done in written.items():
        answers[i] = replace(answers[i], feed=done)
    for i in again:
        if isinstance(submissions[i].feed, FeedPost):
            answers[i] = replace(answers[i], feed=posted(db, submissions[i], answers[i].id))
    db.many(
        "INSERT INTO feed_fallback (notification, item, seq) SELECT n.id, j.value->>1, j.value->>2 "
        "FROM jsonb_each(?) j CROSS JOIN notification n ON n.uuid = j.value->>0",
        parts.fallbacks,
    )
    return answers


def _change(
    db: Db, submissions: Sequence[Submission], change: FeedChange | FeedBulk, now: float, plain: _Plain
) -> list[Put]:
    head = submissions[0]
    written, changed, endpoint = decide(db, head, change, now)
    unmade = problem(submissions, written)
    if unmade is not None:
        return unmade
    seq, identity = db.json("UPDATE feed SET seq = seq + ? RETURNING json_array(seq, identity)", len(changed))
    written, items = numbered(written, changed, seq)
    answers = plain(db, [told(excluding(sub, endpoint), written, identity) for sub in submissions], now)
    if refused(answers):
        db.run("UPDATE feed SET seq = seq - ?", len(changed))
        return answers
    write(db, head, items, forget=isinstance(change, FeedChange) and change.withdraw)
    answers[0] = replace(answers[0], feed=written)
    return answers
