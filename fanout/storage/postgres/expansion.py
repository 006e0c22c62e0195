"""The endpoints of a topic or a broadcast, read part by part of the directory."""

from __future__ import annotations

from array import array

from fanout.core.feed import Audience
from fanout.core.shard import SHARDS
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.resolving import unpacked
from fanout.storage.sql.feed_audience import condition

__all__ = ["audience"]

_PACKED = "SELECT string_agg(int8send(id), '') FROM ({} LIMIT $4) page"
"""Numbers as one value, eight bytes each, most significant first: as an array they cost ten times as much to take
apart."""
_ALL = (
    "(SELECT e.id FROM endpoint_{0} e WHERE e.binding = $1 AND e.state = 'active' AND e.usr <> '' AND {0} >= ($2::bigint & 15) "
    "AND e.id > CASE WHEN {0} = ($2 & 15) THEN $2 ELSE 0 END AND e.id <= $3{1} ORDER BY e.id LIMIT $4)"
)
_TOPIC = (
    "(SELECT t.endpoint AS id FROM endpoint_tag_{0} t{2} WHERE t.binding = $1 AND t.tag = $5 AND {0} >= ($2::bigint & 15) "
    "AND t.endpoint > CASE WHEN {0} = ($2 & 15) THEN $2 ELSE 0 END AND t.endpoint <= $3{1} ORDER BY t.endpoint LIMIT $4)"
)
_JOIN = " JOIN endpoint_{0} e ON e.id = t.endpoint"


async def audience(
    db: Db, audience: Audience | None, name: str, binding: int, topic: str | None, cursor: int, high: int, limit: int
) -> array[int]:
    """The next endpoints, part by part of the directory, in each by id: endpoints that are read together stand together
    there.

    The cursor is the last one of them, whose part its number tells. All parts merged by number would cost twice as much
    here, and each chunk then an access to every part when it is sent.
    """
    named = [] if topic is None else [topic]
    asked, values = condition(db, audience, name, "e", first=5 + len(named))
    each = (_ALL if topic is None else _TOPIC).format
    parts = (each(shard, asked, _JOIN.format(shard) if asked else "") for shard in range(SHARDS))
    sql = _PACKED.format(" UNION ALL ".join(parts))
    return unpacked("q", await db.value(sql, binding, cursor, high, limit, *named, *values) or b"")
