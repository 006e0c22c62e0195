"""Which notifications are addressed to a user: what an export asks for."""

from __future__ import annotations

from collections.abc import Collection

from fanout.core.shard import shard_of
from fanout.storage.erasing import names_user
from fanout.storage.packing import unpack
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.erasing import AIMED
from fanout.storage.targets import LIST

__all__ = ["addressed"]

_CANDIDATES = (
    f"SELECT id, uuid, aim, names FROM ("
    f"{' UNION ALL '.join(f'SELECT id, uuid, aim, names FROM notification WHERE {which} AND id > $3' for which in AIMED)}"
    f") n ORDER BY id LIMIT $4"
)


async def addressed(db: Db, app: str, user: str, after: int, limit: int) -> tuple[list[str], int | None]:
    """See `Storage`. Of a list without a collapse key the names are not kept: it is the user's where an endpoint of the user's has a delivery.

    What no worker has taken yet comes last. It is read first, as it may be taken in between.
    """
    if not user:
        return [], None
    number = await db.app(app)
    devices: set[int] = set()
    if number:
        rows = await db.rows(
            "SELECT id FROM endpoint WHERE app = $1 AND usr = $2 AND usr <> '' AND shard = $3",
            number,
            user,
            shard_of(user, b""),
        )
        devices = {row[0] for row in rows}
    waiting = [
        uuid
        for uuid, target in await db.rows(
            "SELECT uuid, (envelope::jsonb->'target')::text AS target FROM inbox WHERE app = $1 ORDER BY uuid", app
        )
        if names_user(target, user, devices)
    ]
    aims = [f"u:{user}", *(f"e:{id}" for id in sorted(devices)), LIST]
    rows = await db.rows(_CANDIDATES, number, aims, after, limit) if number else []
    found = [uuid for id, uuid, aim, names in rows if aim != LIST or await _listed(db, id, names, user, devices)]
    if len(rows) == limit:
        return found, rows[-1][0]
    return [*dict.fromkeys([*found, *waiting])], None


async def _listed(db: Db, id: int, names: str | None, user: str, devices: Collection[int]) -> bool:
    if names is not None:
        return names_user(names, user, devices)
    for (target,) in await db.rows("SELECT target FROM expansion WHERE notification = $1", id):
        if names_user(target, user, devices):
            return True
    if not devices:
        return False
    chunks = await db.rows(
        "SELECT a.ids FROM chunk c JOIN audience a ON a.chunk = c.id WHERE c.notification = $1 AND c.low <= $2 AND c.high >= $3",
        id,
        max(devices),
        min(devices),
    )
    return any(each in devices for (ids,) in chunks for each in unpack(ids))
