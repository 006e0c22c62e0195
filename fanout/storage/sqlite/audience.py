"""The endpoints that a target names: looked up for many notifications at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.storage.sql.hot import Want
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.targets import asked, by_binding

__all__ = ["look_up"]


def look_up(db: Db, wanted: Sequence[Want]) -> list[dict[int, list[int]]]:
    """The active endpoints of each (narrow) target by binding's number, ids ascending."""
    users, ids = asked(wanted)
    rows: list[list[Any]] = []
    if users:
        rows += db.rows(
            "j.value->>0, e.id, e.binding",
            "json_each(?) j CROSS JOIN endpoint e WHERE e.app = j.value->>1 AND e.usr = j.value->>2 AND e.usr <> '' "
            "AND e.state = 'active'",
            dumps(users),
        )
    if ids:
        rows += db.rows(
            "j.value->>0, e.id, e.binding",
            "json_each(?) j CROSS JOIN endpoint e ON e.id = j.value->>2 WHERE e.app = j.value->>1 AND e.state = 'active'",
            dumps(ids),
        )
    return by_binding(((i, id, binding) for i, id, binding in rows), len(wanted))
