"""Which notifications are addressed to a user: what an export asks for."""

from __future__ import annotations

from collections.abc import Collection

from fanout.storage.erasing import names_user
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.erasing import AIMED
from fanout.storage.targets import LIST

__all__ = ["addressed"]


def addressed(db: Db, app: str, user: str, after: int, limit: int) -> tuple[list[str], int | None]:
    """See `Storage`. Of a list without a collapse key the names are not kept: it is the user's where an endpoint of the user's has a delivery."""
    number = db.app(app)
    if not user or not number:
        return [], None
    devices: set[int] = set(
        db.json("SELECT json_group_array(id) FROM endpoint WHERE app = ? AND usr = ? AND usr <> ''", number, user)
    )
    aims = dumps([f"u:{user}", *(f"e:{id}" for id in sorted(devices)), LIST])
    # No index has them all in order: numbers alone are sorted, and the part is read by them.
    part = sorted(id for which in AIMED for (id,) in db.rows("id", f"{which} AND id > ?3", number, aims, after))[:limit]
    rows = db.rows(
        "n.id, n.uuid, n.aim, n.names", "json_each(?) j CROSS JOIN notification n ON n.id = j.value", dumps(part)
    )
    found = [uuid for id, uuid, aim, names in rows if aim != LIST or _listed(db, id, names, user, devices)]
    return found, rows[-1][0] if len(rows) == limit else None


def _listed(db: Db, id: int, names: str | None, user: str, devices: Collection[int]) -> bool:
    if names is not None:
        return names_user(names, user, devices)
    for (target,) in db.rows("target", "expansion WHERE notification = ?", id):
        if names_user(target, user, devices):
            return True
    if not devices:
        return False
    chunks = db.rows(
        "hex(a.ids)",
        "chunk c CROSS JOIN audience a ON a.chunk = c.id WHERE c.notification = ? AND c.low <= ? AND c.high >= ?",
        id,
        max(devices),
        min(devices),
    )
    return any(each in devices for (ids,) in chunks for each in unpack(ids))
