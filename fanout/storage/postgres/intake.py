"""Put: from submissions to notifications, chunks and expansions, in one transaction and a fixed number of statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.records import Put, Submission
from fanout.storage.acceptance import Keys, Known, answer_replays, check_keys, refused_name
from fanout.storage.chunks import Plan, Start
from fanout.storage.postgres.cutting import cut, store
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import ADD_LOAD, fill
from fanout.storage.postgres.registration import intern
from fanout.storage.sealing import masked, target_key
from fanout.storage.sql.collapsing import Place, joinable, supersede
from fanout.storage.sql.db import Again
from fanout.storage.sql.expansion import look_up_all
from fanout.storage.sql.feed_put import Tell, put_with_feed
from fanout.storage.targets import aimed, dump

__all__ = ["put"]


async def put(db: Db, submissions: Sequence[Submission], now: float) -> list[Put]:
    """Store all of them or none."""
    if any(sub.target.kind == "addresses" for sub in submissions):
        submissions = masked(await db.seal(), submissions)
    if any(sub.feed is not None or sub.follows for sub in submissions):
        return await put_with_feed(db, submissions, now, _put, _replayed, _stored)
    return await _put(db, submissions, now)


async def _replayed(db: Db, submissions: Sequence[Submission], now: float) -> set[int]:
    apps = [await db.app(sub.app, create=True) for sub in submissions]
    return set((await _check_keys(db, submissions, apps, now)).replays)


async def _put(db: Db, submissions: Sequence[Submission], now: float, tell: Tell | None = None) -> list[Put]:
    if db.again:
        known = await _stored(db, submissions)
        if known is not None:
            return known
    apps = [await db.app(sub.app, create=True) for sub in submissions]
    answers = [Put() for _ in submissions]
    keys = await _check_keys(db, submissions, apps, now)
    for i, holder in keys.conflicts.items():
        answers[i] = Put(conflict=holder)
    starts: dict[int, Start] = {}
    for i in keys.fresh:
        sub = submissions[i]
        names = list(sub.target.ids if sub.target.kind == "endpoints" else sub.target.names)
        starts[i] = Start(0, apps[i], sub.lane, sub.due_at, sub.target.kind, names, sub.audience)
    await look_up_all(db, [start for i, start in starts.items() if submissions[i].refused], now)
    for i, start in starts.items():
        sub = submissions[i]
        refused = refused_name(sub, {name: await db.binding(start.app, name) for name in sub.refused}, start.found)
        if refused:
            answers[i] = Put(refused=refused)
    accepted = not any(answer.refused or answer.conflict for answer in answers)
    if accepted:
        await _store(db, submissions, starts, answers, now, tell)
    answer_replays(answers, keys.replays, accepted=accepted)
    return answers


async def _stored(db: Db, submissions: Sequence[Submission]) -> list[Put] | None:
    """The answers, if an earlier run of the same put was committed. What it superseded is not told again."""
    rows = await db.rows(
        "SELECT uuid, CASE WHEN expansions = 0 THEN total END FROM notification WHERE uuid = ANY($1::text[])",
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
        held = None
        if sub.idempotency_key is not None:
            held = await db.row(
                "SELECT i.uuid, CASE WHEN n.expansions = 0 THEN n.total END FROM idempotency i "
                "LEFT JOIN notification n ON n.uuid = i.uuid WHERE i.app = $1 AND i.key = $2",
                await db.app(sub.app),
                sub.idempotency_key,
            )
        # One that is neither there nor a replay was optional, and for nobody.
        answers.append(Put(dropped=True) if held is None else Put(id=held[0], total=held[1], replayed=True))
    return answers


async def _check_keys(db: Db, submissions: Sequence[Submission], apps: Sequence[int], now: float) -> Keys:
    keyed = [(apps[i], sub.idempotency_key) for i, sub in enumerate(submissions) if sub.idempotency_key is not None]
    known: dict[tuple[int, str], Known] = {}
    if keyed:
        rows = await db.rows(
            "SELECT i.app, i.key, i.uuid, i.digest, CASE WHEN n.expansions = 0 THEN n.total END "
            "FROM unnest($1::int[], $2::text[]) j(app, key) "
            "CROSS JOIN LATERAL (SELECT * FROM idempotency WHERE app = j.app AND key = j.key OFFSET 0) i "
            "LEFT JOIN LATERAL (SELECT expansions, total FROM notification WHERE uuid = i.uuid OFFSET 0) n ON true WHERE i.at >= $3",
            *zip(*keyed, strict=True),
            now - db.context.retention.idempotency_keys,
        )
        known = {(app, key): (uuid, digest, total) for app, key, uuid, digest, total in rows}
    return check_keys(submissions, apps, known)


async def _store(
    db: Db,
    submissions: Sequence[Submission],
    starts: dict[int, Start],
    answers: list[Put],
    now: float,
    tell: Tell | None,
) -> None:
    """Addresses first; then notifications, in runs in which nothing supersedes what is stored by the same run."""
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
    joining: dict[int, Place] = {}
    for i, start in starts.items():
        sub = submissions[i]
        if sub.joins and sub.collapse_key is not None:
            joining[i] = start.app, sub.collapse_key, target_key(seal, sub.target)
    joined = await joinable(db, joining)
    for i, (_, id, _) in joined.items():
        del starts[i]
        answers[i] = Put(id=id, joined=True)
    run: dict[int, Start] = {}
    places: dict[Place, int] = {}
    for i, start in starts.items():
        sub = submissions[i]
        if sub.collapse_key is not None:
            place = (start.app, sub.collapse_key, target_key(seal, sub.target))
            if place in places:
                await _store_run(db, submissions, run, places, answers, now, tell)
                run, places = {}, {}
            places[place] = i
        run[i] = start
    await _store_run(db, submissions, run, places, answers, now, tell)
    if joined:
        told = submissions if tell is None else await tell()
        last = {number: (number, size, told[i].joins) for i, (number, _, size) in joined.items()}
        await fill(db, list(last.values()))


async def _take_keys(db: Db, submissions: Sequence[Submission], starts: dict[int, Start], now: float) -> None:
    """Enter the idempotency keys, before anything else is locked: whoever has one of them too waits for this put to end."""
    keys = [
        (start.app, sub.idempotency_key, sub.id, sub.digest)
        for i, start in starts.items()
        for sub in (submissions[i],)
        if sub.idempotency_key is not None
    ]
    if not keys:
        return
    entered = await db.many(
        "INSERT INTO idempotency AS i (app, key, uuid, digest, at) "
        "SELECT app, key, uuid, digest, $5 FROM unnest($1::int[], $2::text[], $3::text[], $4::bytea[]) j(app, key, uuid, digest) "
        "ON CONFLICT (app, key) DO UPDATE SET uuid = excluded.uuid, digest = excluded.digest, at = excluded.at WHERE i.at < $6",
        sorted(keys),
        now,
        now - db.context.retention.idempotency_keys,
    )
    if entered != len(keys):
        raise Again


async def _store_run(
    db: Db,
    submissions: Sequence[Submission],
    starts: dict[int, Start],
    places: dict[Place, int],
    answers: list[Put],
    now: float,
    tell: Tell | None,
) -> None:
    if not starts:
        return
    superseded = await supersede(db, places, now)
    target_keys = {i: target_key for (_, _, target_key), i in places.items()}
    for order, start in enumerate(starts.values()):
        start.notification = order
    plan = await cut(db, [start for i, start in starts.items() if submissions[i].due_at <= now])
    rows: list[tuple[Any, ...]] = []
    told = submissions if tell is None else await tell()
    for i, start in starts.items():
        sub = told[i]
        if sub.due_at > now:
            plan.schedule(start, dump(sub.target, start.names, sub.audience))
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
    numbers = sorted(row[0] for row in await db.rows(_INSERT, *zip(*rows, strict=True)))
    _number(plan, list(starts.values()), numbers)
    await store(db, plan, now)
    for i, start in starts.items():
        total = None if start.expansions else start.total
        answers[i] = Put(id=submissions[i].id, total=total, superseded=superseded.get(i, ()))


def _number(plan: Plan, starts: Sequence[Start], numbers: Sequence[int]) -> None:
    """The notifications have got their numbers, which ascend: until now they were counted from 0."""
    for start, number in zip(starts, numbers, strict=True):
        start.notification = number
    for chunk in plan.chunks:
        chunk.notification = numbers[chunk.notification]
    for expansion in plan.expansions:
        expansion[0] = numbers[expansion[0]]


_INSERT = f"""
WITH n AS (
  INSERT INTO notification (uuid, app, lane, repeat, accepted_at, due_at, expires_at, collapse_key, target_key, content, aim, names, total,
    expansions)
  SELECT * FROM unnest($1::text[], $2::int[], $3::smallint[], $4::text[], $5::float8[], $6::float8[], $7::float8[], $8::text[],
    $9::bytea[], $10::bytea[], $11::text[], $12::text[], $13::bigint[], $14::int[])
  RETURNING id, app, total + expansions AS deliveries, octet_length(content) AS bytes
), l AS ({ADD_LOAD.format("SELECT app, deliveries, bytes FROM n")})
SELECT id FROM n
"""
