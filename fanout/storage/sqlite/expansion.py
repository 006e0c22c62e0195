"""Whom a topic or a broadcast is for, read by number."""

from __future__ import annotations

from fanout.core.feed import Audience
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.feed_audience import condition

__all__ = ["audience"]


def audience(
    db: Db, audience: Audience | None, name: str, binding: int, topic: str | None, cursor: int, high: int, limit: int
) -> list[int]:
    """The next endpoints behind the cursor."""
    asked, values = condition(audience, name, "e") if audience is not None else ("", [])
    if topic is None:
        key, which = "e.id", "endpoint e WHERE e.binding = ? AND e.state = 'active' AND e.usr <> ''"
    else:
        key = "t.endpoint"
        joined = " CROSS JOIN endpoint e ON e.id = t.endpoint" if audience is not None else ""
        which = f"endpoint_tag t{joined} WHERE t.binding = ? AND t.tag = ?"
    found: list[int] = db.json(
        f"SELECT json_group_array(id) FROM (SELECT {key} AS id FROM {which} AND {key} > ? AND {key} <= ?{asked} ORDER BY {key} LIMIT ?)",
        binding,
        *(() if topic is None else (topic,)),
        cursor,
        high,
        *values,
        limit,
    )
    return found
