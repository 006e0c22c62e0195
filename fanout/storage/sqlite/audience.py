"""The endpoints that a target names: looked up for many notifications at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.storage.sql.hot import Want
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.targets import asked, by_binding

__all__ = ["look_up"]

_ACTIVE = "json_each(?) j CROSS JOIN endpoint e WHERE e.app = j.value->>1 AND e.state = 'active'"
_OF_USERS = f"{_ACTIVE} AND e.usr = j.value->>2 AND e.usr <> ''"
_OF_IDS = f"{_ACTIVE} AND e.id = j.value->>2"


def look_up(db: Db, wanted: Sequence[Want]) -> list[dict[int, list[int]]]:
    """The active endpoints of each (narrow) target by binding's number, ids ascending."""
    rows: list[list[Any]] = []
    for chosen, which in zip(asked(wanted), (_OF_USERS, _OF_IDS), strict=True):
        if chosen:
            rows += db.rows("j.value->>0, e.id, e.binding", which, dumps(chosen))
    return by_binding(((i, id, binding) for i, id, binding in rows), len(wanted))
