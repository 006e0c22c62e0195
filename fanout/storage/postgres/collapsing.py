"""The collapse key: which notification takes an earlier one's place, as a whole and for single endpoints."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import ADD_LOAD
from fanout.storage.sql.stopping import stop
from fanout.storage.targets import LIST

__all__ = ["Place", "join", "joinable", "supersede", "superseded"]

Place = tuple[int, str, bytes]
"""(app, collapse key, digest of the target)."""


_THERE = (
    "unnest($1::int[], $2::text[], $3::bytea[], $4::int[]) j(app, key, target, i) "
    "CROSS JOIN LATERAL (SELECT id, uuid, stopped, expansions FROM notification WHERE app = j.app AND coalesce(collapse_key, '') = j.key "
    "AND target_key = j.target AND num_nulls(finished_at) = 1 OFFSET 0) n"
)
"""The unfinished notifications at places."""


async def supersede(db: Db, places: dict[Place, int], now: float) -> dict[int, tuple[str, ...]]:
    """Stop the unfinished notifications of these places, and say which they were.

    Until the transaction ends nobody else puts anything there: of two at once, one would not see the other.
    """
    if not places:
        return {}
    await _take(db, places)
    rows = await db.rows(
        f"SELECT n.id, n.uuid, j.i FROM {_THERE} WHERE n.stopped = '' ORDER BY n.id",
        *zip(*((*place, i) for place, i in places.items()), strict=True),
    )
    await stop(db, [row[0] for row in rows], "superseded", now)
    return {i: tuple(uuid for _, uuid, other in rows if other == i) for i in places.values()}


async def joinable(db: Db, places: dict[Place, int]) -> dict[int, tuple[int, str, int]]:
    """The notifications at these places that wait for their time, which are held: number, id, and bytes of content.

    Until the transaction ends nobody else puts anything there.
    """
    if not places:
        return {}
    await _take(db, places)
    rows = await db.rows(
        f"WITH f AS MATERIALIZED (SELECT j.i, n.id FROM {_THERE} WHERE n.stopped = '' AND n.expansions > 0 ORDER BY n.id) "
        "SELECT f.i, n.id, n.uuid, octet_length(n.content) FROM f "
        "CROSS JOIN LATERAL (SELECT * FROM notification WHERE id = f.id OFFSET 0 FOR NO KEY UPDATE) n "
        "WHERE n.finished_at IS NULL AND n.stopped = '' AND n.expansions > 0",
        *zip(*((*place, i) for place, i in places.items()), strict=True),
    )
    # Once it is held: until then somebody may have begun it.
    waiting = await db.rows(
        "SELECT notification FROM expansion WHERE binding = 0 AND notification = ANY($1::bigint[])",
        [row[1] for row in rows],
    )
    still = {row[0] for row in waiting}
    return {i: (id, uuid, size) for i, id, uuid, size in rows if id in still}


async def join(db: Db, rows: Sequence[tuple[int, str, int, bytes]]) -> None:
    """Give each of what `joinable` found its new content."""
    await db.many(
        "WITH n AS (UPDATE notification n SET content = j.content FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bytea[]) "
        "j (id, uuid, size, content) WHERE n.id = ANY (ARRAY[j.id]) RETURNING n.app, 0 AS deliveries, octet_length(j.content) - j.size AS bytes), "
        f"l AS ({ADD_LOAD.format('SELECT app, deliveries, bytes FROM n')}) SELECT count(*) FROM n",
        rows,
    )


async def _take(db: Db, places: Iterable[Place]) -> None:
    await db.run(
        "SELECT pg_advisory_xact_lock(k) FROM (SELECT k FROM unnest($1::bigint[]) k ORDER BY k) ordered",
        sorted({_lock_key(place) for place in places}),
    )


def _lock_key(place: Place) -> int:
    app, key, target = place
    digest = blake2b(b"%d\0%s\0%s" % (app, target, key.encode()), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


_MINE = """
SELECT n.app, n.collapse_key, n.id FROM notification n WHERE n.uuid = $1 AND n.collapse_key IS NOT NULL AND EXISTS (
  SELECT 1 FROM notification l WHERE l.app = n.app AND l.collapse_key = n.collapse_key AND l.collapse_key IS NOT NULL AND l.id > n.id)
"""
_LATER = "notification n WHERE n.app = $1 AND n.collapse_key = $2 AND n.aim {} AND n.aim IS NOT NULL AND n.stopped = '' AND n.id > $3"
_LISTS = "SELECT n.names FROM " + _LATER.format(f"= '{LIST}'")
_NAMED = f"""
SELECT e.id FROM unnest($4::bigint[]) j(id)
CROSS JOIN LATERAL (SELECT * FROM endpoint WHERE id = j.id AND shard = (j.id & 15)::smallint OFFSET 0) e
WHERE e.app = $1 AND e.state = 'active' AND (
  e.id = ANY($5::bigint[])
  OR EXISTS (SELECT 1 FROM {_LATER.format("= 'e:' || e.id")})
  OR e.usr <> '' AND (
    e.usr = ANY($6::text[])
    OR EXISTS (SELECT 1 FROM {_LATER.format("= 'a'")})
    OR EXISTS (SELECT 1 FROM {_LATER.format("= 'u:' || e.usr")})
    OR EXISTS (SELECT 1 FROM unnest(e.tags) t(tag) CROSS JOIN LATERAL (SELECT FROM {_LATER.format("= 't:' || t.tag")} OFFSET 0) l)
  )
)
"""


async def superseded(db: Db, uuid: str, ids: array[int]) -> set[int]:
    """Of these endpoints, those that a later notification of the same key is for as well."""
    mine = await db.row(_MINE, uuid)
    if mine is None:
        return set()
    app, key, id = mine
    listed: dict[str, list[Any]] = {"users": [], "endpoints": []}
    for row in await db.rows(_LISTS, app, key, id):
        kind, names = orjson.loads(row[0])
        listed[kind] += names
    rows = await db.rows(_NAMED, app, key, id, ids, listed["endpoints"], listed["users"])
    return {row[0] for row in rows}
