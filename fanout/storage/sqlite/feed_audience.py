"""Which of a target's endpoints a submission with an audience is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fanout.core.feed import Audience
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["condition", "narrow"]


class _Start(Protocol):
    notification: int
    audience: Audience | None
    found: dict[int, list[int]]


def narrow(db: Db, starts: Sequence[_Start], now: float) -> None:
    """Leave in `found` only the endpoints that each start's audience admits, and the bindings that have such.

    An endpoint past its time is left out here: the janitor may not have come by yet.
    """
    chosen = [(start, start.audience) for start in starts if start.audience is not None]
    if not chosen:
        return
    ids = {id for start, _ in chosen for group in start.found.values() for id in group}
    known: dict[int, list[Any]] = {}
    if ids:
        rows = db.rows(
            "e.id, e.receive, e.platform, b.name",
            "json_each(?) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN binding b ON b.id = e.binding "
            "WHERE e.expires_at IS NULL OR e.expires_at > ?",
            dumps(list(ids)),
            now,
        )
        known = {row[0]: row[1:] for row in rows}
    due = [start.notification for start, audience in chosen if audience.unseen and start.notification]
    unseen = _unseen(db, due, now) if due else {}
    for start, audience in chosen:
        without = {audience.exclude}
        if audience.unseen and start.notification:
            if start.notification not in unseen:
                start.found = {}
                continue
            without |= unseen[start.notification]
        start.found = {
            binding: kept
            for binding, group in start.found.items()
            if (kept := [id for id in group if id in known and id not in without and audience.admits(*known[id])])
        }


def _unseen(db: Db, notifications: list[int], now: float) -> dict[int, set[int]]:
    """For each fallback whose item is as it was posted: the endpoints that have fetched it. The rest are not mentioned."""
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
