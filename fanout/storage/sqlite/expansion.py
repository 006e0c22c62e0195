"""The endpoints of a topic or a broadcast, read by number."""

from __future__ import annotations

import orjson

from fanout.core.feed import Audience
from fanout.storage.sql.db import Db
from fanout.storage.sql.feed_audience import condition

__all__ = ["audience"]


async def audience(
    db: Db, audience: Audience | None, name: str, binding: int, topic: str | None, cursor: int, high: int, limit: int
) -> list[int]:
    """The next endpoints behind the cursor."""
    named = [] if topic is None else [topic]
    asked, values = condition(db, audience, name, "e", first=5 + len(named))
    if topic is None:
        key, which = "e.id", "endpoint e WHERE e.binding = $1 AND e.state = 'active' AND e.usr <> ''"
    else:
        key = "t.endpoint"
        joined = " CROSS JOIN endpoint e ON e.id = t.endpoint" if audience is not None else ""
        which = f"endpoint_tag t{joined} WHERE t.binding = $1 AND t.tag = $5"
    page = f"SELECT {key} AS id FROM {which} AND {key} > $2 AND {key} <= $3{asked} ORDER BY {key} LIMIT $4"
    found: list[int] = orjson.loads(
        await db.value(f"SELECT json_group_array(id) FROM ({page})", binding, cursor, high, limit, *named, *values)
    )
    return found
