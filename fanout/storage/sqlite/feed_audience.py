"""Which of a target's endpoints a submission with an audience is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fanout.core.feed import Audience
from fanout.storage.chunks import Start
from fanout.storage.feed_audience import admit
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["condition", "look_up_some"]


def look_up_some(db: Db, starts: Sequence[Start], now: float) -> None:
    """Fill in `found` for starts with an audience and a narrow target: the endpoints that it admits, ids ascending.

    An endpoint past its time is left out here: the janitor may not have come by yet.
    """
    waiting = [
        start.notification for start in starts if start.audience and start.audience.unseen and start.notification
    ]
    admit(starts, _rows(db, starts, now), _unseen(db, waiting, now))


def _rows(db: Db, starts: Iterable[Start], now: float) -> dict[tuple[int, Any], list[list[Any]]]:
    """The active endpoints of each (app, user or endpoint id): id, binding, what it receives, platform, the binding's name."""
    users: dict[tuple[int, Any], None] = {}
    ids: dict[tuple[int, Any], None] = {}
    for start in starts:
        (ids if start.kind == "endpoints" else users).update(((start.app, name), None) for name in start.names)
    by: dict[tuple[int, Any], list[list[Any]]] = {}
    for wanted, condition in ((users, "e.app = j.value->>0 AND e.usr = j.value->>1 AND e.usr <> ''"), (ids, _BY_ID)):
        if not wanted:
            continue
        keys = list(wanted)
        for key, *row in db.rows(
            "j.key, e.id, e.binding, e.receive, e.platform, b.name",
            f"json_each(?) j CROSS JOIN endpoint e ON {condition} CROSS JOIN binding b ON b.id = e.binding "
            "WHERE e.state = 'active' AND (e.expires_at IS NULL OR e.expires_at > ?)",
            dumps(keys),
            now,
        ):
            by.setdefault(keys[key], []).append(row)
    return by


_BY_ID = "e.id = j.value->>1 AND e.app = j.value->>0"


def _unseen(db: Db, notifications: Sequence[int], now: float) -> dict[int, set[int]]:
    """For each fallback whose item is as it was posted: the endpoints that have fetched it. The rest are not mentioned."""
    if not notifications:
        return {}
    rows = db.rows(
        "f.notification, json((SELECT json_group_array(s.endpoint) FROM feed_seen x CROSS JOIN subscription s "
        "ON s.id = x.subscription WHERE x.item = f.item))",
        "json_each(?) j CROSS JOIN feed_fallback f ON f.notification = j.value CROSS JOIN feed_item i ON i.id = f.item "
        "WHERE i.seq = f.seq AND i.deleted = 0 AND i.expires_at > ?",
        dumps(notifications),
        now,
    )
    return {notification: set(endpoints) for notification, endpoints in rows}


def condition(audience: Audience, binding: str, endpoint: str = "endpoint") -> tuple[str, list[Any]]:
    """What SQL asks of an endpoint of that binding, beginning with AND, and the values for its question marks."""
    asked = f" AND {endpoint}.receive IN (SELECT value FROM json_each(?)) AND {endpoint}.id <> ?"
    values: list[Any] = [dumps(sorted(audience.receive)), audience.exclude]
    if audience.platforms is not None:
        asked += f" AND iif({endpoint}.platform = '', ?, lower({endpoint}.platform) IN (SELECT value FROM json_each(?))) <> ?"
        values += [binding in audience.bindings, dumps(sorted(audience.platforms)), audience.inverse]
    return asked, values
