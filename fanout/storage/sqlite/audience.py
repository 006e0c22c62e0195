"""Whom a target names: looked up for many notifications at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.storage.sql.hot import Want
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["look_up"]


def look_up(db: Db, wanted: Sequence[Want]) -> list[dict[int, list[int]]]:
    """The active endpoints of each (narrow) target by binding's number, ids ascending."""
    found: list[dict[int, list[int]]] = [{} for _ in wanted]
    users = [
        [i, app, name] for i, (app, kind, names) in enumerate(wanted) if kind in ("user", "users") for name in names
    ]
    ids = [[i, app, id] for i, (app, kind, names) in enumerate(wanted) if kind == "endpoints" for id in names]
    rows: list[list[Any]] = []
    if users:
        rows += db.rows(
            "j.value->>0, e.binding, e.id",
            "json_each(?) j CROSS JOIN endpoint e WHERE e.app = j.value->>1 AND e.usr = j.value->>2 AND e.usr <> '' "
            "AND e.state = 'active'",
            dumps(users),
        )
    if ids:
        rows += db.rows(
            "j.value->>0, e.binding, e.id",
            "json_each(?) j CROSS JOIN endpoint e ON e.id = j.value->>2 WHERE e.app = j.value->>1 AND e.state = 'active'",
            dumps(ids),
        )
    for i, id, binding in sorted({(i, id, binding) for i, binding, id in rows}):
        found[i].setdefault(binding, []).append(id)
    return found
