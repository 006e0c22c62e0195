"""Whom a target names: looked up for many notifications at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.model import Target
from fanout.core.shard import shard_of
from fanout.plugin import place_of
from fanout.storage.postgres.db import Db
from fanout.storage.sealing import lookup_digest
from fanout.storage.targets import parts

__all__ = ["count", "look_up", "touched"]

Want = tuple[int, str, list[Any]]
"""(app's number, kind, names or ids) of one target."""

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


async def touched(db: Db, app: int, kind: str, names: Sequence[Any]) -> list[int]:
    """The numbers of the bindings on which a topic or broadcast would reach somebody now."""
    if kind == "topic":
        rows = await db.rows(
            "SELECT b.id FROM binding b WHERE b.app = $1 "
            "AND EXISTS (SELECT 1 FROM endpoint_tag t WHERE t.binding = b.id AND t.tag = $2) ORDER BY b.id",
            app,
            names[0],
        )
    else:
        rows = await db.rows(
            "SELECT b.id FROM binding b WHERE b.app = $1 AND EXISTS "
            "(SELECT 1 FROM endpoint e WHERE e.binding = b.id AND e.state = 'active' AND e.usr <> '') ORDER BY b.id",
            app,
        )
    return [row[0] for row in rows]


async def count(db: Db, app: str, target: Target) -> dict[str, int]:
    """How many active endpoints the target names, by binding's name."""
    number = await db.app(app)
    match target.kind:
        case "topic":
            rows = await db.rows(
                "SELECT b.name, (SELECT count(*) FROM endpoint_tag t WHERE t.binding = b.id AND t.tag = $2) "
                "FROM binding b WHERE b.app = $1",
                number,
                target.names[0],
            )
        case "all":
            rows = await db.rows(
                "SELECT b.name, (SELECT count(*) FROM endpoint e WHERE e.binding = b.id AND e.state = 'active' AND e.usr <> '') "
                "FROM binding b WHERE b.app = $1",
                number,
            )
        case "addresses":
            seal, place = await db.seal(), place_of(app, target.binding)
            rows = await db.rows(
                "SELECT b.name, (SELECT count(*) FROM unnest($3::bytea[]) j (digest) CROSS JOIN LATERAL "
                "(SELECT FROM address WHERE digest = j.digest AND binding = b.id OFFSET 0) a) "
                "FROM binding b WHERE b.app = $1 AND b.name = $2",
                number,
                target.binding,
                list({bytes.fromhex(lookup_digest(seal, place, address)) for address in target.addresses}),
            )
        case _:
            kind, wanted = parts(target)
            (found,) = await look_up(db, [(number, kind, wanted)])
            return {await db.binding_name(binding): len(ids) for binding, ids in found.items()}
    return {name: n for name, n in rows if n}
