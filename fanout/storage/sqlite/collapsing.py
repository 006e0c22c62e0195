"""The collapse key: which notification takes an earlier one's place, as a whole and for single endpoints."""

from __future__ import annotations

from array import array
from typing import Any

from fanout.core.records import Submission
from fanout.storage.sealing import target_key
from fanout.storage.sql.stopping import stop
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.session import shared
from fanout.storage.targets import LIST

__all__ = ["join", "supersede", "superseded"]


_AT = (
    "json_each(?) j CROSS JOIN notification n WHERE n.app = j.value->>0 AND n.collapse_key = j.value->>1 "
    "AND n.target_key = unhex(j.value->>2) AND n.collapse_key IS NOT NULL AND n.finished_at IS NULL AND n.stopped = ''"
)
"""The unfinished notifications at (app, collapse key, target)."""


def supersede(db: Db, places: dict[tuple[int, str, str], int], now: float) -> dict[int, tuple[str, ...]]:
    """Stop the unfinished notifications of these (app, collapse key, target), and say which they were."""
    if not places:
        return {}
    rows = db.rows(
        "n.id, n.uuid, j.value->>3",
        _AT,
        dumps([[*place, i] for place, i in places.items()]),
    )
    shared(db, stop, [row[0] for row in rows], "superseded", now)
    return {i: tuple(uuid for _, uuid, other in rows if other == i) for i in places.values()}


def join(db: Db, subs: dict[int, tuple[int, Submission]]) -> dict[int, str]:
    """Give those of these submissions (with their apps) to the ones that wait for their time at the same place; which took which."""
    rows = db.rows(
        "j.value->>3, n.id, n.uuid",
        f"{_AT} AND EXISTS (SELECT 1 FROM expansion x WHERE x.notification = n.id AND x.binding = 0)",
        dumps([[app, sub.collapse_key, target_key(db.seal(), sub.target).hex(), i] for i, (app, sub) in subs.items()]),
    )
    db.many(
        "UPDATE notification SET content = unhex(j.value->>1) FROM jsonb_each(?) j WHERE notification.id = j.value->>0",
        [[id, subs[i][1].joins.hex()] for i, id, _ in rows],
    )
    return {i: uuid for i, _, uuid in rows}


_MINE = """
notification n WHERE n.uuid = ? AND n.collapse_key IS NOT NULL AND EXISTS (SELECT 1 FROM notification l
WHERE l.app = n.app AND l.collapse_key = n.collapse_key AND l.collapse_key IS NOT NULL AND l.id > n.id)
"""
_LATER = "notification n WHERE n.app = ?1 AND n.collapse_key = ?2 AND n.aim {} AND n.aim IS NOT NULL AND n.stopped = '' AND n.id > ?3"
_NAMED = f"""
SELECT json_group_array(e.id) FROM json_each(?4) j CROSS JOIN endpoint e ON e.id = j.value WHERE e.app = ?1 AND e.state = 'active' AND (
  e.id IN (SELECT value FROM json_each(?5))
  OR EXISTS (SELECT 1 FROM {_LATER.format("= 'e:' || e.id")})
  OR e.usr <> '' AND (
    e.usr IN (SELECT value FROM json_each(?6))
    OR EXISTS (SELECT 1 FROM {_LATER.format("= 'a'")})
    OR EXISTS (SELECT 1 FROM {_LATER.format("= 'u:' || e.usr")})
    OR EXISTS (SELECT 1 FROM json_each(e.tags) t CROSS JOIN {_LATER.format("= 't:' || t.value")})
  )
)
"""


def superseded(db: Db, uuid: str, ids: array[int]) -> set[int]:
    """Of these endpoints, those that a later notification of the same key is for as well."""
    mine = db.rows("n.app, n.collapse_key, n.id", _MINE, uuid)
    if not mine:
        return set()
    app, key, id = mine[0]
    listed: dict[str, list[Any]] = {"users": [], "endpoints": []}
    for kind, names in db.rows("n.names->>0, json(n.names->1)", _LATER.format(f"= '{LIST}'"), app, key, id):
        listed[kind] += names
    return set(db.json(_NAMED, app, key, id, dumps(ids.tolist()), dumps(listed["endpoints"]), dumps(listed["users"])))
