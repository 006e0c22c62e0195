"""Which notifications are addressed to a user: an export reads them."""

from __future__ import annotations

from collections.abc import Collection

from fanout.core.shard import shard_of
from fanout.storage.erasing import names_user
from fanout.storage.packing import unpack
from fanout.storage.sql.db import Db, column
from fanout.storage.targets import LIST

__all__ = ["addressed", "aimed", "devices_of"]


def aimed(db: Db) -> list[str]:
    """Conditions that find, together, the notifications of app `$1` with an aim among `$2`, each in an index:
    `notification_aim`, which has the collapse key before the aim, and `notification_stopped`."""
    which = f"app = $1 AND aim {db.among(2, 'text')} AND aim IS NOT NULL AND"
    keys = ("collapse_key IS NULL AND stopped = ''", "collapse_key IS NOT NULL AND stopped = ''", "stopped <> ''")
    return [f"{which} {key}" for key in keys]


async def devices_of(db: Db, app: int, user: str) -> set[int]:
    """The user's endpoints, in any state."""
    found = await column(
        db,
        f"SELECT id FROM endpoint WHERE app = $1 AND usr = $2 AND usr <> ''{db.part('endpoint', '$3')}",
        app,
        user,
        shard_of(user, b""),
    )
    return set(found)


async def addressed(db: Db, app: str, user: str, after: int, limit: int) -> tuple[list[str], int | None]:
    """See `Storage`. Of a list without a collapse key the names are not kept: it is the user's where an endpoint of the
    user's has a delivery.

    Inbox entries that no worker has taken yet come last. It is read first, as it may be taken in between.
    """
    if not user:
        return [], None
    number = await db.app(app)
    devices = await devices_of(db, number, user) if number else set()
    waiting = [uuid for uuid, target in await db.entered(app) if names_user(target, user, devices)]
    aims = [f"u:{user}", *(f"e:{id}" for id in sorted(devices)), LIST]
    ids: list[int] = []
    for which in aimed(db) if number else ():
        ids += await column(db, f"SELECT id FROM notification WHERE {which} AND id > $3", number, aims, after)
    page = sorted(ids)[:limit]
    rows = await db.rows(f"SELECT id, uuid, aim, names FROM notification WHERE id {db.among(1, 'bigint')}", page)
    found = [
        uuid
        for id, uuid, aim, names in sorted(map(tuple, rows))
        if aim != LIST or await _listed(db, id, names, user, devices)
    ]
    if len(page) == limit:
        return found, page[-1]
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
        f"SELECT {db.binary('a.ids')} FROM chunk c JOIN audience a ON a.chunk = c.id "
        "WHERE c.notification = $1 AND c.low <= $2 AND c.high >= $3",
        id,
        max(devices),
        min(devices),
    )
    return any(each in devices for (ids,) in chunks for each in unpack(db.bytes_of(ids)))
