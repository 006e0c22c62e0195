"""A put that writes into the feed: around the ordinary one, in the same transaction.

The ordinary put looks up all that it needs, and says whether all is in order, for nothing takes a write back. Then,
before it stores pushes, it is told the results of the feed writes, numbers included. In the end the feed is written.
From the moment that it has its numbers, a put is the only one that writes to the feed. So numbers are committed in
their order: all other work has been done before. Where a transaction is alone (`Db.alone`) the numbers come first:
nothing is looked up twice, and a put that is refused gives them back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from fanout.core.feed import FeedBulk, FeedChange, FeedItem, FeedPost, FeedWritten
from fanout.core.records import Put, Submission
from fanout.storage.feed_changes import numbered
from fanout.storage.feed_put import Parts, excluding, pass_on, posts_of, problem, pushes_of, refused, with_written
from fanout.storage.sql.db import Again, Db
from fanout.storage.sql.feed_changes import decide, write
from fanout.storage.sql.feed_posts import Posts, posted

__all__ = ["Tell", "put_with_feed"]

Tell = Callable[[], Awaitable[Sequence[Submission]]]
"""Gives the submissions as they are to be stored, where that is known at the last moment only."""
_Plain = Callable[[Any, Sequence[Submission], float, Tell], Awaitable[list[Put]]]
_Replays = Callable[[Any, Sequence[Submission], float], Awaitable[set[int]]]
_Stored = Callable[[Any, Sequence[Submission]], Awaitable[list[Put] | None]]


def _once(tell: Tell) -> Tell:
    seen: list[Sequence[Submission]] = []

    async def written_once() -> Sequence[Submission]:
        if not seen:
            seen.append(await tell())
        return seen[0]

    return written_once


async def put_with_feed(
    db: Db, submissions: Sequence[Submission], now: float, plain: _Plain, replays: _Replays, stored: _Stored
) -> list[Put]:
    """Store all of them or none, with their feed writes. `stored` gives the answers of an earlier run of the same put,
    if there was one."""
    if isinstance(submissions[0].feed, FeedChange | FeedBulk):
        return await _change(db, submissions, submissions[0].feed, now, plain)
    if db.again:
        known = await _known(db, submissions, now, stored)
        if known is not None:
            return known
    keyed = any(sub.idempotency_key is not None for sub in submissions)
    again = await replays(db, submissions, now) if keyed else set()
    parts = Parts()
    fresh = posts_of(submissions, again)
    posts = Posts(db, now)
    written: dict[int, FeedWritten] = {}
    same: set[int] | None = None

    async def plan() -> Sequence[Submission]:
        nonlocal parts
        written.update(
            zip(fresh, await posts.plan([submissions[i] for i in fresh], pushes_of(submissions, fresh)), strict=True)
        )
        unchanged = {i for i, each in written.items() if not each.changed}
        if same is not None and unchanged != same:
            raise Again  # another caller has posted or deleted it since it was read
        parts = pass_on(submissions, again, written, posts.identity, unchanged)
        return parts.passed

    tell = _once(plan)
    if db.alone:
        await tell()
    else:
        said = await posts.same([submissions[i] for i in fresh])
        same = {i for i, nothing in zip(fresh, said, strict=True) if nothing}
        parts = pass_on(submissions, again, written, 0, same)
    answers = [Put(dropped=True) for _ in submissions]
    for i, answer in zip(parts.kept, await plain(db, parts.passed, now, tell), strict=True):
        answers[i] = answer
    if refused(answers):
        await posts.give_back()
        return [Put() if answer.dropped else answer for answer in answers]
    if any(answers[i].replayed for i in fresh):
        raise Again  # another caller entered the key after it was looked for
    await tell()  # where no part had a recipient, nothing has asked yet
    await posts.write()
    for i, done in written.items():
        answers[i] = replace(answers[i], feed=done)
    for i in again:
        if isinstance(submissions[i].feed, FeedPost):
            answers[i] = replace(answers[i], feed=await posted(db, submissions[i], answers[i].id))
    if parts.fallbacks:
        await db.many(
            "INSERT INTO feed_fallback (notification, item, seq) SELECT n.id, j.item, j.seq "
            f"FROM {db.joined(1, 'notification n', 'uuid', uuid='text', item='bigint', seq='bigint')}",
            parts.fallbacks,
        )
    return answers


async def _change(
    db: Db, submissions: Sequence[Submission], change: FeedChange | FeedBulk, now: float, plain: _Plain
) -> list[Put]:
    head = submissions[0]
    if db.again and isinstance(change, FeedChange):
        # If it was stored, the item's number is another than the one that it was to match.
        change = replace(change, if_match=None) if await _made(db, head, change, now) else change
    written, changed, endpoint = await decide(db, head, change, now)
    unmade = problem(submissions, written)
    if unmade is not None:
        return unmade
    passed = [excluding(sub, endpoint) for sub in submissions]
    items: list[FeedItem] = []

    async def decided() -> Sequence[Submission]:
        nonlocal written, items
        row = await db.row("UPDATE feed SET seq = seq + $1 WHERE id = 1 RETURNING seq, identity", len(changed))
        assert row is not None
        seq, identity = row
        still = changed
        if not db.alone:
            # Once more, for another transaction may have changed it before this put was the only one to write.
            written, still, device = await decide(db, head, change, now)
            if len(still) != len(changed) or problem(submissions, written) is not None or device != endpoint:
                raise Again
        written, items = numbered(written, still, seq)
        # The state that was read last knows of the numbers of this put, under which nothing is yet.
        written = replace(written, position=min(written.position, seq - len(changed)))
        return [with_written(sub, written, identity) for sub in passed]

    tell = _once(decided)
    answers = await plain(db, passed, now, tell)
    if not refused(answers):
        await tell()
        await write(db, head, items, forget=isinstance(change, FeedChange) and change.withdraw)
        answers[0] = replace(answers[0], feed=written)
    return answers


# -- when the answer of an earlier run was lost


async def _made(db: Db, head: Submission, change: FeedChange, now: float) -> bool:
    """Whether the change of an earlier run is the last change of the item."""
    written, _, _ = await decide(db, head, replace(change, if_match=None), now)
    return not written.changed and written.item is not None and written.item.modified_at == now


async def _known(db: Db, submissions: Sequence[Submission], now: float, stored: _Stored) -> list[Put] | None:
    """The answers, if an earlier run of the same put was committed: all of its parts and its items, or none."""
    answers = await stored(db, submissions)
    found: dict[int, FeedWritten] = {}
    for i, sub in enumerate(submissions):
        if isinstance(sub.feed, FeedPost):
            found[i] = await posted(db, sub, sub.id)
    if answers is None:
        heads = [sub for i, sub in enumerate(submissions) if i in found]
        if not heads or not all([await _entered(db, sub, now) for sub in heads]):
            return None
        answers = [Put(dropped=True) for _ in submissions]
    for i, written in found.items():
        if answers[i].replayed:
            written = await posted(db, submissions[i], answers[i].id)
        answers[i] = replace(answers[i], feed=written)
    return answers


async def _entered(db: Db, sub: Submission, now: float) -> bool:
    """Whether the item of this post was entered at that moment; it had no recipient, so that no notification tells."""
    assert isinstance(sub.feed, FeedPost)
    user = sub.target.names[0] if sub.target.kind in ("user", "users") else ""
    return bool(
        await db.value(
            "SELECT EXISTS (SELECT 1 FROM feed_item WHERE app = $1 AND usr = $2 AND content = $5 AND (uuid = $3 OR external = $4) "
            "AND coalesce(modified_at, created_at) = $6)",
            await db.app(sub.app),
            user,
            sub.id,
            sub.feed.external_id,
            sub.feed.content.decode(),
            now,
        )
    )
