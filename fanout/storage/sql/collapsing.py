"""The collapse key: which notification takes an earlier one's place, as a whole and for single endpoints."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import orjson

from fanout.storage.sql.db import Db, Rows, column, made_once
from fanout.storage.sql.stopping import stop
from fanout.storage.targets import LIST

__all__ = ["Place", "joinable", "supersede", "superseded"]

Place = tuple[int, str, bytes]
"""(app, collapse key, digest of the target)."""


async def supersede(db: Db, places: Mapping[Place, int], now: float) -> dict[int, tuple[str, ...]]:
    """Stop the unfinished notifications of these places, and say which they were.

    Until the transaction ends no other one puts anything there: of two at once, one would not see the other.
    """
    if not places:
        return {}
    await _take(db, places)
    rows = await db.rows(
        f"SELECT n.id, n.uuid, j.i FROM {db.at_places(1)} WHERE n.stopped = ''",
        Rows([(*key, i) for key, i in places.items()], 4),
    )
    rows = sorted(map(tuple, rows))
    await stop(db, [row[0] for row in rows], "superseded", now)
    return {i: tuple(uuid for _, uuid, other in rows if other == i) for i in places.values()}


async def joinable(db: Db, places: Mapping[int, Place]) -> dict[int, tuple[int, str, int]]:
    """The notifications at these places that wait for their time, which are held: number, id, and bytes of content.

    Until the transaction ends no other one puts anything there.
    """
    if not places:
        return {}
    await _take(db, places.values())
    rows = await db.rows(
        f"SELECT j.i, n.id FROM {db.at_places(1)} WHERE n.stopped = '' AND n.expansions > 0",
        Rows([(*key, i) for i, key in places.items()], 4),
    )
    found = await db.rows(
        f"SELECT id, uuid, length(content) FROM notification WHERE id {db.among(1, 'bigint')} "
        f"AND finished_at IS NULL AND stopped = '' AND expansions > 0{db.hold('id')}",
        sorted({row[1] for row in rows}),
    )
    stored = {row[0]: tuple(row) for row in found}
    # Once it is held: until then a worker may have begun it.
    unbegun = f"binding = 0 AND notification {db.among(1, 'bigint')}"
    waiting = set(await column(db, f"SELECT notification FROM expansion WHERE {unbegun}", list(stored)))
    return {i: stored[id] for i, id in rows if id in waiting}


async def _take(db: Db, places: Iterable[Place]) -> None:
    await db.lock_numbers(sorted({_lock_key(key) for key in places}))


def _lock_key(parts: Place) -> int:
    app, key, target = parts
    digest = blake2b(b"%d\0%s\0%s" % (app, target, key.encode()), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


_MINE = """
SELECT n.app, n.collapse_key, n.id FROM notification n WHERE n.uuid = $1 AND n.collapse_key IS NOT NULL AND EXISTS (
  SELECT 1 FROM notification l WHERE l.app = n.app AND l.collapse_key = n.collapse_key AND l.collapse_key IS NOT NULL AND l.id > n.id)
"""
_LATER = "notification n WHERE n.app = $1 AND n.collapse_key = $2 AND n.aim {} AND n.aim IS NOT NULL AND n.stopped = '' AND n.id > $3"
_LISTS = "SELECT n.names FROM " + _LATER.format(f"= '{LIST}'")


@made_once
def _named(db: Db) -> str:
    def later(aim: str) -> str:
        return _LATER.format(f"= {aim}")

    return f"""
SELECT e.id FROM {db.of_endpoints(4)}
WHERE e.app = $1 AND e.state = 'active' AND (
  e.id {db.among(5, "bigint")}
  OR EXISTS (SELECT 1 FROM {later("'e:' || e.id")})
  OR e.usr <> '' AND (
    e.usr {db.among(6, "text")}
    OR EXISTS (SELECT 1 FROM {later("'a'")})
    OR EXISTS (SELECT 1 FROM {later("'u:' || e.usr")})
    OR {db.tagged(later("'t:' || t.value"))}
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
    for (text,) in await db.rows(_LISTS, app, key, id):
        kind, names = orjson.loads(text)
        listed[kind] += names
    found = await column(db, _named(db), app, key, id, ids.tolist(), listed["endpoints"], listed["users"])
    return set(found)
