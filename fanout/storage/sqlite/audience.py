"""Whom a target names: looked up for many notifications at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.model import Target
from fanout.plugin import place_of
from fanout.storage.sealing import lookup_digest
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.targets import parts

__all__ = ["count", "look_up", "touched"]

Want = tuple[int, str, list[Any]]
"""(app's number, kind, names or ids) of one target."""


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


def touched(db: Db, app: int, kind: str, names: Sequence[Any]) -> list[int]:
    """The numbers of the bindings on which a topic or broadcast would reach somebody now."""
    if kind == "topic":
        return list(
            db.json(
                "SELECT json_group_array(b.id) FROM binding b WHERE b.app = ? "
                "AND EXISTS (SELECT 1 FROM endpoint_tag t WHERE t.binding = b.id AND t.tag = ?)",
                app,
                names[0],
            )
        )
    return list(
        db.json(
            "SELECT json_group_array(b.id) FROM binding b WHERE b.app = ? "
            "AND EXISTS (SELECT 1 FROM endpoint e WHERE e.binding = b.id AND e.state = 'active' AND e.usr <> '')",
            app,
        )
    )


def count(db: Db, app: str, target: Target) -> dict[str, int]:
    """How many active endpoints the target names, by binding's name."""
    number = db.app(app)
    names: dict[int, str] = db.pairs("id, name", "binding WHERE app = ?", number)
    if target.kind == "topic":
        counts = {
            id: db.value("SELECT count(*) FROM endpoint_tag WHERE binding = ? AND tag = ?", id, target.names[0])
            for id in names
        }
    elif target.kind == "all":
        counts = {
            id: db.value("SELECT count(*) FROM endpoint WHERE binding = ? AND state = 'active' AND usr <> ''", id)
            for id in names
        }
    elif target.kind == "addresses":
        seal, place = db.seal(), place_of(app, target.binding)
        digests = dumps([lookup_digest(seal, place, address) for address in target.addresses])
        binding = db.binding(number, target.binding)
        counts = {
            binding: db.value(
                "SELECT count(*) FROM endpoint WHERE binding = ? AND state = 'active' "
                "AND digest IN (SELECT unhex(value) FROM json_each(?))",
                binding,
                digests,
            )
        }
    else:
        kind, wanted = parts(target)
        counts = {binding: len(ids) for binding, ids in look_up(db, [(number, kind, wanted)])[0].items()}
    return {names[id]: n for id, n in counts.items() if n}
