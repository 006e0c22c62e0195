"""Whom a target names: looked up for many notifications at once."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.shard import shard_of
from fanout.storage.postgres.db import Db
from fanout.storage.sql.hot import Want

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
    found: list[dict[int, list[int]]] = [{} for _ in wanted]
    users = [
        (i, app, name, shard_of(name, b""))
        for i, (app, kind, names) in enumerate(wanted)
        if kind in ("user", "users")
        for name in names
        if name
    ]
    ids = [(i, app, id) for i, (app, kind, names) in enumerate(wanted) if kind == "endpoints" for id in names]
    rows: set[tuple[int, int, int]] = set()
    for sql, chosen in ((_OF_USERS, users), (_OF_IDS, ids)):
        if chosen:
            (columns,) = await db.rows(sql, *zip(*chosen, strict=True))
            if columns[0] is not None:
                rows.update(zip(columns[0], columns[2], columns[1], strict=True))
    for i, id, binding in sorted(rows):
        found[i].setdefault(binding, []).append(id)
    return found
