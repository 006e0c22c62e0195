"""The endpoints that a target names: looked up for many notifications at once."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.shard import shard_of
from fanout.storage.postgres.db import Db
from fanout.storage.sql.hot import Want
from fanout.storage.targets import asked, by_binding

__all__ = ["look_up"]

_OF_USERS = """
SELECT array_agg(j.i), array_agg(e.binding), array_agg(e.id)
FROM unnest($1::int[], $2::int[], $3::text[], $4::smallint[]) j (i, app, usr, shard) CROSS JOIN LATERAL (
  SELECT binding, id, state FROM endpoint WHERE shard = j.shard AND app = j.app AND usr = j.usr AND usr <> '' OFFSET 0
) e WHERE e.state = 'active'
"""
_OF_IDS = """
SELECT array_agg(j.i), array_agg(e.binding), array_agg(e.id) FROM unnest($1::int[], $2::int[], $3::bigint[]) j (i, app, id)
CROSS JOIN LATERAL (
  SELECT app, binding, id, state FROM endpoint WHERE id = j.id AND shard = (j.id & 15)::smallint OFFSET 0
) e WHERE e.app = j.app AND e.state = 'active'
"""


async def look_up(db: Db, wanted: Sequence[Want]) -> list[dict[int, list[int]]]:
    """The active endpoints of each (narrow) target by binding's number, ids ascending."""
    users, ids = asked(wanted)
    placed = [(*user, shard_of(user[2], b"")) for user in users]
    rows: list[tuple[int, int, int]] = []
    for sql, chosen in ((_OF_USERS, placed), (_OF_IDS, ids)):
        if chosen:
            (columns,) = await db.rows(sql, *zip(*chosen, strict=True))
            if columns[0] is not None:
                rows += zip(columns[0], columns[2], columns[1], strict=True)
    return by_binding(rows, len(wanted))
