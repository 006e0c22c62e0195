"""Which of a target's endpoints a submission with an audience is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from fanout.core.feed import Audience
from fanout.core.shard import shard_of
from fanout.storage.chunks import Start
from fanout.storage.feed_audience import admit
from fanout.storage.sql.db import Db, Rows, made_once

__all__ = ["condition", "look_up_some"]


async def look_up_some(db: Db, starts: Sequence[Start], now: float) -> None:
    """Fill in `found` for starts with an audience and a narrow target: the endpoints that it admits, ids ascending.

    An endpoint past its time is left out here: the janitor may not have come by yet.
    """
    waiting = [
        start.notification for start in starts if start.audience and start.audience.unseen and start.notification
    ]
    admit(starts, await _rows(db, starts, now), await _unseen(db, waiting, now))


@made_once
def _by_user(db: Db) -> str:
    user = {"i": "int", "app": "int", "usr": "text", "shard": "smallint"}
    also = f"e.usr <> ''{db.part('e', 'j.shard')}"
    return _FOUND.format(db.joined(2, "endpoint e", "app, usr", also, **user))


@made_once
def _by_id(db: Db) -> str:
    wanted = {"i": "int", "app": "int", "id": "bigint"}
    return _FOUND.format(db.joined(2, "endpoint e", "id", f"true{db.part('e', 'j.id & 15')}", **wanted))


_FOUND = (
    "SELECT j.i, e.id, e.binding, e.receive, e.platform, (SELECT name FROM binding WHERE id = e.binding) FROM {} "
    "WHERE e.app = j.app AND e.state = 'active' AND (e.expires_at IS NULL OR e.expires_at > $1)"
)


async def _rows(db: Db, starts: Iterable[Start], now: float) -> dict[tuple[int, Any], list[list[Any]]]:
    """The active endpoints of each (app, user or endpoint id): id, binding, `receive`, platform, the binding's name."""
    users: dict[tuple[int, Any], None] = {}
    ids: dict[tuple[int, Any], None] = {}
    for start in starts:
        (ids if start.kind == "endpoints" else users).update(((start.app, name), None) for name in start.names if name)
    of_users = [(i, app, name, shard_of(name, b"")) for i, (app, name) in enumerate(users)]
    of_ids = [(i, app, id) for i, (app, id) in enumerate(ids)]
    by: dict[tuple[int, Any], list[list[Any]]] = {}
    for sql, wanted, keys in ((_by_user(db), Rows(of_users, 4), list(users)), (_by_id(db), Rows(of_ids, 3), list(ids))):
        if keys:
            for i, *row in await db.rows(sql, now, wanted):
                by.setdefault(keys[i], []).append(row)
    return by


async def _unseen(db: Db, notifications: Sequence[int], now: float) -> dict[int, set[int]]:
    """For each fallback whose item is as it was posted: the endpoints that have fetched it. The rest are not
    mentioned."""
    if not notifications:
        return {}
    seen = "feed_seen x JOIN subscription s ON s.id = x.subscription WHERE x.item = f.item"
    rows = await db.rows(
        f"SELECT f.notification, {db.lists('s.endpoint', seen)} FROM feed_fallback f JOIN feed_item i ON i.id = f.item "
        f"WHERE f.notification {db.among(1, 'bigint')} AND i.seq = f.seq AND NOT i.deleted AND i.expires_at > $2",
        list(notifications),
        now,
    )
    return {notification: {endpoint for (endpoint,) in orjson.loads(found)} for notification, found in rows}


def condition(db: Db, audience: Audience | None, binding: str, endpoint: str, *, first: int) -> tuple[str, list[Any]]:
    """The SQL condition for an endpoint of that binding, beginning with AND, and the values of its arguments, which
    begin with ``$first``; nothing where there is no audience."""
    if audience is None:
        return "", []
    asked = f" AND {endpoint}.receive {db.among(first, 'text')} AND {endpoint}.id <> ${first + 1}"
    values: list[Any] = [sorted(audience.receive), audience.exclude]
    if audience.platforms is not None:
        asked += (
            f" AND CASE WHEN {endpoint}.platform = '' THEN CAST(${first + 2} AS boolean) "
            f"ELSE lower({endpoint}.platform) {db.among(first + 3, 'text')} END <> CAST(${first + 4} AS boolean)"
        )
        values += [binding in audience.bindings, sorted(audience.platforms), audience.inverse]
    return asked, values
