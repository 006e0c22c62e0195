"""Put: from submissions to notifications, chunks and expansions, in one transaction and a fixed number of statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.records import Put, Submission
from fanout.storage.acceptance import Keys, Known, answer_replays, check_keys, refused_name
from fanout.storage.chunks import Start
from fanout.storage.sealing import masked, target_key
from fanout.storage.sql.collapsing import Place, joinable, supersede
from fanout.storage.sql.expansion import look_up_all
from fanout.storage.sql.feed_put import Tell, put_with_feed
from fanout.storage.sqlite.cutting import cut, store
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.ledger import fill
from fanout.storage.sqlite.registration import intern
from fanout.storage.sqlite.session import as_operation, finished, shared
from fanout.storage.targets import aimed, dump

__all__ = ["put"]


def put(db: Db, submissions: Sequence[Submission], now: float) -> list[Put]:
    """Store all of them or none."""
    if any(sub.target.kind == "addresses" for sub in submissions):
        submissions = masked(db.seal(), submissions)
    if any(sub.feed is not None or sub.follows for sub in submissions):
        return shared(
            db, put_with_feed, submissions, now, as_operation(_put), as_operation(_replayed), as_operation(_stored)
        )
    return _put(db, submissions, now)


def _replayed(db: Db, submissions: Sequence[Submission], now: float) -> set[int]:
    apps = [db.app(sub.app, create=True) for sub in submissions]
    return set(_check_keys(db, submissions, apps, now).replays)


def _stored(db: Db, submissions: Sequence[Submission]) -> list[Put] | None:
    return None  # no commit is in doubt here


def _put(db: Db, submissions: Sequence[Submission], now: float, tell: Tell | None = None) -> list[Put]:
    apps = [db.app(sub.app, create=True) for sub in submissions]
    answers = [Put() for _ in submissions]
    keys = _check_keys(db, submissions, apps, now)
    for i, holder in keys.conflicts.items():
        answers[i] = Put(conflict=holder)
    starts: dict[int, Start] = {}
    for i in keys.fresh:
        sub = submissions[i]
        names = list(sub.target.ids if sub.target.kind == "endpoints" else sub.target.names)
        starts[i] = Start(0, apps[i], sub.lane, sub.due_at, sub.target.kind, names, sub.audience)
    shared(db, look_up_all, [start for i, start in starts.items() if submissions[i].refused], now)
    for i, start in starts.items():
        sub = submissions[i]
        refused = refused_name(sub, {name: db.binding(start.app, name) for name in sub.refused}, start.found)
        if refused:
            answers[i] = Put(refused=refused)
    accepted = not any(answer.refused or answer.conflict for answer in answers)
    if accepted:
        _store(db, submissions if tell is None else finished(tell()), starts, answers, now)
    answer_replays(answers, keys.replays, accepted=accepted)
    return answers


def _check_keys(db: Db, submissions: Sequence[Submission], apps: Sequence[int], now: float) -> Keys:
    keyed = [(apps[i], sub.idempotency_key) for i, sub in enumerate(submissions) if sub.idempotency_key is not None]
    known: dict[tuple[int, str], Known] = {}
    if keyed:
        rows = db.rows(
            "i.app, i.key, i.uuid, hex(i.digest), CASE WHEN n.expansions = 0 THEN n.total END",
            "json_each(?) j CROSS JOIN idempotency i LEFT JOIN notification n ON n.uuid = i.uuid "
            "WHERE i.app = j.value->>0 AND i.key = j.value->>1 AND i.at >= ?",
            dumps(keyed),
            now - db.context.retention.idempotency_keys,
        )
        known = {(app, key): (uuid, bytes.fromhex(digest), total) for app, key, uuid, digest, total in rows}
    return check_keys(submissions, apps, known)


def _store(db: Db, submissions: Sequence[Submission], starts: dict[int, Start], answers: list[Put], now: float) -> None:
    """Addresses first; then notifications, in runs in which nothing supersedes what is stored by the same run."""
    joining: dict[int, Place] = {}
    for i, start in starts.items():
        sub = submissions[i]
        if sub.joins and sub.collapse_key is not None:
            joining[i] = start.app, sub.collapse_key, target_key(db.seal(), sub.target)
        if sub.target.kind == "addresses":
            start.kind = "endpoints"
            start.names = intern(db, sub.app, sub.target.binding, sub.target.addresses, now)
    shared(
        db,
        look_up_all,
        [start for i, start in starts.items() if submissions[i].due_at <= now or submissions[i].optional],
        now,
    )
    for i in [i for i, start in starts.items() if submissions[i].optional and not start.found]:
        del starts[i]
        answers[i] = Put(dropped=True)
        joining.pop(i, None)
    if joining:
        joined = shared(db, joinable, joining)
        for i, (_, id, _) in joined.items():
            del starts[i]
            answers[i] = Put(id=id, joined=True)
        fill(db, [(number, size, submissions[i].joins) for i, (number, _, size) in joined.items()])
    run: dict[int, Start] = {}
    places: dict[Place, int] = {}
    for i, start in starts.items():
        sub = submissions[i]
        if sub.collapse_key is not None:
            place = (start.app, sub.collapse_key, target_key(db.seal(), sub.target))
            if place in places:
                _store_run(db, submissions, run, places, answers, now)
                run, places = {}, {}
            places[place] = i
        run[i] = start
    _store_run(db, submissions, run, places, answers, now)


def _store_run(
    db: Db,
    submissions: Sequence[Submission],
    starts: dict[int, Start],
    places: dict[Place, int],
    answers: list[Put],
    now: float,
) -> None:
    superseded = shared(db, supersede, places, now) if places else {}
    target_keys = {i: target_key.hex() for (_, _, target_key), i in places.items()}
    for number, start in enumerate(starts.values(), db.next_id("notification") if starts else 0):
        start.notification = number
    plan = cut(db, [start for i, start in starts.items() if submissions[i].due_at <= now])
    rows: list[list[Any]] = []
    keys: list[list[Any]] = []
    for i, start in starts.items():
        sub = submissions[i]
        if sub.due_at > now:
            plan.schedule(start, dump(sub.target, start.names, sub.audience))
        rows.append(
            [
                start.notification,
                sub.id,
                start.app,
                sub.lane,
                sub.repeat,
                sub.accepted_at,
                sub.due_at,
                sub.expires_at,
                sub.collapse_key,
                target_keys.get(i),
                (sub.joins if sub.joins and superseded.get(i) else sub.content).hex(),
                *aimed(start.kind, start.names, sub.collapse_key),
                start.total,
                start.expansions,
            ]
        )
        if sub.idempotency_key is not None:
            keys.append([start.app, sub.idempotency_key, sub.id, sub.digest.hex(), now])
    _insert(db, rows)
    db.many(
        "INSERT OR REPLACE INTO idempotency (app, key, uuid, digest, at) "
        "SELECT value->>0, value->>1, value->>2, unhex(value->>3), value->>4 FROM jsonb_each(?)",
        keys,
    )
    store(db, plan, now)
    for i, start in starts.items():
        total = None if start.expansions else start.total
        answers[i] = Put(id=submissions[i].id, total=total, superseded=superseded.get(i, ()))


def _insert(db: Db, rows: Sequence[Sequence[Any]]) -> None:
    db.many(
        "INSERT INTO notification (id, uuid, app, lane, repeat, accepted_at, due_at, expires_at, collapse_key, target_key, "
        "content, aim, names, total, settled, expansions, attempts, stopped) SELECT value->>0, value->>1, value->>2, value->>3, "
        "value->>4, value->>5, value->>6, value->>7, value->>8, unhex(value->>9), unhex(value->>10), value->>11, value->>12, "
        "value->>13, 0, value->>14, 0, '' FROM jsonb_each(?)",
        rows,
    )
