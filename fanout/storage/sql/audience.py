"""The endpoints that a target names, as far as no driver has better statements for it (`hot.Hot.look_up`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.model import Target
from fanout.plugin import place_of
from fanout.storage.sealing import lookup_digest
from fanout.storage.sql.db import Db, column
from fanout.storage.targets import parts

__all__ = ["count", "touched"]

_OF_BINDING = "FROM endpoint e WHERE e.binding = b.id AND e.state = 'active' AND e.usr <> ''"
_OF_TOPIC = "FROM endpoint_tag t WHERE t.binding = b.id AND t.tag = $2"


async def touched(db: Db, app: int, kind: str, names: Sequence[Any]) -> list[int]:
    """The numbers of the bindings on which a topic or broadcast would reach an endpoint now."""
    which, *named = (_OF_TOPIC, names[0]) if kind == "topic" else (_OF_BINDING,)
    reached = f"SELECT b.id FROM binding b WHERE b.app = $1 AND EXISTS (SELECT 1 {which})"
    return sorted(await column(db, reached, app, *named))


async def count(db: Db, app: str, target: Target) -> dict[str, int]:
    """How many active endpoints the target names, by binding's name."""
    number = await db.app(app)
    match target.kind:
        case "topic" | "all":
            which, *named = (_OF_TOPIC, target.names[0]) if target.kind == "topic" else (_OF_BINDING,)
            rows = await db.rows(
                f"SELECT b.name, (SELECT count(*) {which}) FROM binding b WHERE b.app = $1", number, *named
            )
        case "addresses":
            seal, place = await db.seal(), place_of(app, target.binding)
            rows = await db.rows(
                f"SELECT b.name, {db.count_held(3, 'b.id')} FROM binding b WHERE b.app = $1 AND b.name = $2",
                number,
                target.binding,
                list({bytes.fromhex(lookup_digest(seal, place, address)) for address in target.addresses}),
            )
        case _:
            kind, wanted = parts(target)
            (found,) = await db.hot.look_up(db, [(number, kind, wanted)])
            return {await db.binding_name(binding): len(ids) for binding, ids in found.items()}
    return {name: n for name, n in rows if n}
