"""Put: from submissions to notifications, chunks and expansions, in one transaction and a fixed number of
statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.records import Put, Submission
from fanout.storage.acceptance import Keys, Known, answer_replays, check_keys, refused_name
from fanout.storage.chunks import Start
from fanout.storage.sealing import masked, target_key
from fanout.storage.sql.collapsing import Place, joinable, supersede
from fanout.storage.sql.cutting import cut, store
from fanout.storage.sql.db import Again, Db, Rows, made_once, overwrite
from fanout.storage.sql.expansion import look_up_all
from fanout.storage.sql.feed_put import Tell, put_with_feed
from fanout.storage.sql.registration import intern
from fanout.storage.targets import aimed, dump

__all__ = ["put", "put_gathered"]

_Starts = dict[int, Start]
"""By the submission's place in its batch."""


async def put(db: Db, submissions: Sequence[Submission], now: float) -> list[Put]:
    """Store all of them or none."""
    if any(sub.target.kind == "addresses" for sub in submissions):
        submissions = masked(await db.seal(), submissions)
    if any(sub.feed is not None or sub.follows for sub in submissions):
        return await put_with_feed(db, submissions, now, _put, _replayed, _stored)
    return await _put(db, submissions, now)


async def _replayed(db: Db, submissions: Sequence[Submission], now: float) -> set[int]:
    return set((await _check_keys(db, submissions, await _apps(db, submissions), now)).replays)


async def _put(db: Db, submissions: Sequence[Submission], now: float, tell: Tell | None = None) -> list[Put]:
    if db.again:
        stored = await _stored(db, submissions)
        if stored is not None:
            return stored
    apps = await _apps(db, submissions)
    answers = [Put()] * len(submissions)
    keys = await _check_keys(db, submissions, apps, now)
    for i, holder in keys.conflicts.items():
        answers[i] = Put(conflict=holder)
    starts = {i: _start(submissions[i], apps[i]) for i in keys.fresh}
    judged = {i: start for i, start in starts.items() if submissions[i].refused}
    if judged:
        await look_up_all(db, list(judged.values()), now)
    for i, start in judged.items():
        sub = submissions[i]
        refused = refused_name(sub, {name: await db.binding(start.app, name) for name in sub.refused}, start.found)
        if refused:
            answers[i] = Put(refused=refused)
    accepted = not any(answer.refused or answer.conflict for answer in answers)
    if accepted:
        await _store(db, submissions, starts, answers, now, tell)
    answer_replays(answers, keys.replays, accepted=accepted)
    return answers


async def put_gathered(db: Db, submissions: Sequence[Submission], now: float) -> list[Put]:
    """`put` of those that `acceptance.gathered` lets be stored together, which have little to be asked."""
    if db.again and (stored := await _stored(db, submissions)) is not None:
        return stored
    answers = [Put()] * len(submissions)
    starts = dict(enumerate(map(_start, submissions, await _apps(db, submissions))))
    await look_up_all(db, list(starts.values()), now)
    await _store_run(db, submissions, starts, {}, answers, now, None)
    return answers


async def _apps(db: Db, submissions: Sequence[Submission]) -> list[int]:
    numbers = {app: await db.app(app, create=True) for app in dict.fromkeys([sub.app for sub in submissions])}
    return [numbers[sub.app] for sub in submissions]


def _start(sub: Submission, app: int) -> Start:
    target = sub.target
    names = list(target.ids if target.kind == "endpoints" else target.names)
    return Start(0, app, sub.lane, sub.due_at, target.kind, names, sub.audience)


async def _stored(db: Db, submissions: Sequence[Submission]) -> list[Put] | None:
    """The answers, if an earlier run of the same put was committed. The notifications that it superseded are not
    reported again."""
    rows = await db.rows(
        f"SELECT uuid, CASE WHEN expansions = 0 THEN total END FROM notification WHERE uuid {db.among(1, 'text')}",
        [sub.id for sub in submissions],
    )
    if not rows:
        return None
    totals = {row[0]: row[1] for row in rows}
    answers = []
    for sub in submissions:
        if sub.id in totals:
            answers.append(Put(id=sub.id, total=totals[sub.id]))
            continue
        locked = None
        if sub.idempotency_key is not None:
            locked = await db.row(
                "SELECT i.uuid, CASE WHEN n.expansions = 0 THEN n.total END FROM idempotency i "
                "LEFT JOIN notification n ON n.uuid = i.uuid WHERE i.app = $1 AND i.key = $2",
                await db.app(sub.app),
                sub.idempotency_key,
            )
        # A notification that is neither there nor a replay was optional, and had no recipient.
        answers.append(Put(dropped=True) if locked is None else Put(id=locked[0], total=locked[1], replayed=True))
    return answers


async def _check_keys(db: Db, submissions: Sequence[Submission], apps: Sequence[int], now: float) -> Keys:
    keyed = [(apps[i], sub.idempotency_key) for i, sub in enumerate(submissions) if sub.idempotency_key is not None]
    entered: dict[tuple[int, str], Known] = {}
    if keyed:
        rows = await db.rows(_keys(db), Rows(keyed, 2), now - db.context.retention.idempotency_keys)
        entered = {(app, key): (uuid, db.bytes_of(digest), total) for app, key, uuid, digest, total in rows}
    return check_keys(submissions, apps, entered)


async def _store(
    db: Db, submissions: Sequence[Submission], starts: _Starts, answers: list[Put], now: float, tell: Tell | None
) -> None:
    """Addresses first; then notifications, in runs in which no notification supersedes another of the same run."""
    await _take_keys(db, submissions, starts, now)
    for i, start in starts.items():
        sub = submissions[i]
        if sub.target.kind == "addresses":
            start.kind = "endpoints"
            start.names = await intern(db, sub.app, sub.target.binding, sub.target.addresses, now)
    now_or_optional = [s for i, s in starts.items() if submissions[i].due_at <= now or submissions[i].optional]
    await look_up_all(db, now_or_optional, now)
    for i in [i for i, start in starts.items() if submissions[i].optional and not start.found]:
        del starts[i]
        answers[i] = Put(dropped=True)
    seal = await db.seal() if any(sub.target.kind == "addresses" for sub in submissions) else None
    keyed: dict[int, Place] = {
        i: (start.app, key, target_key(seal, submissions[i].target))
        for i, start in starts.items()
        if (key := submissions[i].collapse_key) is not None
    }
    joining = {i: place for i, place in keyed.items() if submissions[i].joins}
    joined = await joinable(db, joining) if joining else {}
    for i, (_, id, _) in joined.items():
        del starts[i]
        answers[i] = Put(id=id, joined=True)
    run: _Starts = {}
    places: dict[Place, int] = {}
    for i, start in starts.items():
        if i in keyed:
            if keyed[i] in places:
                await _store_run(db, submissions, run, places, answers, now, tell)
                run, places = {}, {}
            places[keyed[i]] = i
        run[i] = start
    await _store_run(db, submissions, run, places, answers, now, tell)
    if joined:
        effective = submissions if tell is None else await tell()
        last = {number: (number, size, effective[i].joins) for i, (number, _, size) in joined.items()}
        await db.hot.fill(db, list(last.values()))


async def _take_keys(db: Db, submissions: Sequence[Submission], starts: dict[int, Start], now: float) -> None:
    """Enter the idempotency keys, before anything else is locked: another put with one of them waits for this put to
    end."""
    subs = [(start.app, submissions[i]) for i, start in starts.items()]
    keys = [(app, sub.idempotency_key, sub.id, sub.digest) for app, sub in subs if sub.idempotency_key is not None]
    if keys and len(keys) != await db.many(_enter(db), sorted(keys), now, now - db.context.retention.idempotency_keys):
        raise Again


@made_once
def _keys(db: Db) -> str:
    given = db.joined(1, "idempotency i", app="int", key="text")
    total = "(SELECT CASE WHEN n.expansions = 0 THEN n.total END FROM notification n WHERE n.uuid = i.uuid)"
    return f"SELECT i.app, i.key, i.uuid, {db.binary('i.digest')}, {total} FROM {given} WHERE i.at >= $3"


@made_once
def _enter(db: Db) -> str:
    given = db.given(1, app="int", key="text", uuid="text", digest="bytea")
    return (
        f"INSERT INTO idempotency AS i (app, key, uuid, digest, at) SELECT app, key, uuid, digest, $5 FROM {given} "
        f"WHERE true ON CONFLICT (app, key) {overwrite('uuid', 'digest', 'at')} WHERE i.at < $6"
    )


async def _store_run(
    db: Db,
    submissions: Sequence[Submission],
    starts: _Starts,
    places: dict[Place, int],
    answers: list[Put],
    now: float,
    tell: Tell | None,
) -> None:
    if not starts:
        return
    superseded = await supersede(db, places, now) if places else {}
    target_keys = {i: target_key for (_, _, target_key), i in places.items()}
    rows: list[tuple[Any, ...]] = []
    effective = submissions if tell is None else await tell()
    for i, start in starts.items():
        sub = effective[i]
        if sub.due_at > now:
            start.total, start.expansions = 0, 1
        rows.append(
            (
                sub.id,
                start.app,
                sub.lane,
                sub.repeat,
                sub.accepted_at,
                sub.due_at,
                sub.expires_at,
                sub.collapse_key,
                target_keys.get(i),
                sub.joins if sub.joins and superseded.get(i) else sub.content,
                *aimed(start.kind, start.names, sub.collapse_key),
                start.total,
                start.expansions,
            )
        )
    for start, number in zip(starts.values(), await db.hot.insert(db, rows), strict=True):
        start.notification = number
    plan = await cut(db, [start for i, start in starts.items() if submissions[i].due_at <= now])
    for i, start in starts.items():
        if effective[i].due_at > now:
            plan.schedule(start, dump(effective[i].target, start.names, effective[i].audience))
        total = None if start.expansions else start.total
        answers[i] = Put(id=submissions[i].id, total=total, superseded=superseded.get(i, ()))
    await store(db, plan, now)
