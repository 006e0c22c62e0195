"""Erasing a user: everywhere that an id, an address or a text of the user stands, in one transaction.

What is addressed to the user alone is stopped, and loses its content; of a list that has others too, the user's name is taken out. Dead rows are the
business of PostgreSQL's vacuum. Notifications are held first, the feed last, as everybody does; what was posted meanwhile is found by a second look.
"""

from __future__ import annotations

from collections.abc import Iterable

from fanout.core.shard import shard_of
from fanout.storage.erasing import BLANK, SHADOW, Listed, without
from fanout.storage.packing import unpack
from fanout.storage.postgres import feed_tidy, inbox
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import ADD_LOAD
from fanout.storage.sql import endpoints
from fanout.storage.sql.stopping import stop

__all__ = ["AIMED", "erase"]

AIMED = (
    "app = $1 AND aim = ANY($2::text[]) AND aim IS NOT NULL AND stopped = ''",
    "app = $1 AND aim = ANY($2::text[]) AND aim IS NOT NULL AND stopped <> ''",
)
"""Each of them finds its rows in an index: `notification_aim` and `notification_stopped`."""


async def erase(db: Db, app: str, user: str, now: float) -> int:
    """Forget this user: what remains of each endpoint is its number, as removed; how many there were."""
    number = await db.app(app)
    if not user or not number:
        return 0
    rows = await db.rows(
        "SELECT id FROM endpoint WHERE app = $1 AND usr = $2 AND usr <> '' AND shard = $3",
        number,
        user,
        shard_of(user, b""),
    )
    devices = {row[0] for row in rows}
    shadows = await _shadows(db, devices)
    devices |= shadows
    await endpoints.lock(db, devices)
    await _inbox(db, app, user, devices, now)
    await _notifications(db, number, user, devices, now)
    count = await endpoints.erase(db, number, user, now)
    await endpoints.wipe(db, sorted(shadows), now, SHADOW)
    await feed_tidy.erase(db, app, user, now)
    await _inbox(db, app, user, devices, now)
    await _notifications(db, number, user, devices, now)
    await db.run(
        'UPDATE event SET data = (data::jsonb || \'{"user": ""}\' || CASE WHEN data::jsonb ? \'device\' THEN \'{"device": ""}\'::jsonb '
        "ELSE '{}'::jsonb END)::text WHERE app = $1 AND kind <> 'notification.finished' AND data::jsonb->>'user' = $2",
        number,
        user,
    )
    return count


async def _shadows(db: Db, devices: Iterable[int]) -> set[int]:
    """Endpoints that have an address of these, and are nobody's or were replaced."""
    rows = await db.rows(
        "SELECT DISTINCT f.id FROM endpoint e JOIN endpoint f ON f.binding = e.binding AND f.digest = e.digest "
        "WHERE e.id = ANY($1::bigint[]) AND e.digest <> '' AND f.state <> 'active' AND (f.usr = '' OR f.state = 'replaced') "
        "UNION SELECT f.id FROM endpoint e JOIN address a ON a.digest = e.digest AND a.binding = e.binding "
        "JOIN endpoint f ON f.id = a.endpoint WHERE e.id = ANY($1::bigint[]) AND e.digest <> '' AND f.usr = ''",
        list(devices),
    )
    return {row[0] for row in rows}


async def _inbox(db: Db, app: str, user: str, devices: set[int], now: float) -> None:
    """What no worker has taken yet: the user's alone goes, and a list loses the name."""
    rows = await db.rows(
        "SELECT uuid, (envelope::jsonb->'target')::text AS target FROM inbox WHERE app = $1 ORDER BY uuid FOR UPDATE",
        app,
    )
    changed: list[tuple[str, str]] = []
    for uuid, target in rows:
        rest = without(target, user, devices)
        if rest is Listed.ALONE:
            await inbox.cancel(db, app, uuid, now)
        elif isinstance(rest, str):
            changed.append((uuid, rest))
    for uuid, rest in changed:
        await db.run(
            "UPDATE inbox SET envelope = jsonb_set(envelope::jsonb, '{target}', $2::jsonb)::text WHERE uuid = $1",
            uuid,
            rest,
        )


async def _notifications(db: Db, app: int, user: str, devices: set[int], now: float) -> None:
    """Stop and empty what is the user's alone, and take the name out of what is others' too."""
    aims = [f"u:{user}", *(f"e:{id}" for id in devices)]
    mine: set[int] = set()
    for which in AIMED:
        mine.update(row[0] for row in await db.rows(f"SELECT id FROM notification WHERE {which}", app, aims))
    mine |= await _listed(db, app, user, devices)
    mine |= await _awaited(db, app, user, devices)
    if not mine:
        return
    chosen = sorted(mine)
    await stop(db, chosen, "cancelled", now)
    await db.run(
        "DELETE FROM idempotency WHERE app = $1 AND uuid IN (SELECT uuid FROM notification WHERE id = ANY($2::bigint[]))",
        app,
        chosen,
    )
    # `load` has an unfinished one's content until it finishes, and takes off then what it finds.
    await db.run(_EMPTY, chosen, BLANK)


_EMPTY = f"""
WITH o AS (
  SELECT id, app, finished_at, octet_length(content) AS size FROM notification WHERE id = ANY($1::bigint[])
), n AS (
  UPDATE notification SET content = $2, collapse_key = NULL, target_key = NULL, aim = NULL, names = NULL WHERE id = ANY($1::bigint[])
)
{ADD_LOAD.format("SELECT app, 0 AS deliveries, octet_length($2::bytea) - size AS bytes FROM o WHERE finished_at IS NULL")}
"""


async def _listed(db: Db, app: int, user: str, devices: set[int]) -> set[int]:
    """Of the notifications to a list, those that are the user's alone; from the names of the others, the user's is taken."""
    mine: set[int] = set()
    open_: list[int] = []
    changed: list[tuple[int, str]] = []
    for which in AIMED:
        for id, names in await db.rows(f"SELECT id, names FROM notification WHERE {which}", app, ["*"]):
            if names is None:
                open_.append(id)
                continue
            rest = without(names, user, devices)
            if rest is Listed.ALONE:
                mine.add(id)
            elif isinstance(rest, str):
                changed.append((id, rest))
    for id, rest in sorted(changed):
        await db.run("UPDATE notification SET names = $2 WHERE id = $1", id, rest)
    return mine | await _only(db, open_, devices)


async def _only(db: Db, notifications: list[int], devices: set[int]) -> set[int]:
    """Of these, those whose deliveries are all for these endpoints, or for ones of users who were erased before, and which have some."""
    if not devices or not notifications:
        return set()
    touched = await db.rows(
        "SELECT DISTINCT notification FROM chunk WHERE notification = ANY($1::bigint[]) AND low <= $2 AND high >= $3",
        notifications,
        max(devices),
        min(devices),
    )
    mine: set[int] = set()
    for (id,) in touched:
        rows = await db.rows(
            "SELECT a.ids FROM chunk c JOIN audience a ON a.chunk = c.id WHERE c.notification = $1", id
        )
        others = {each for (ids,) in rows for each in unpack(ids)} - devices
        named = "SELECT EXISTS (SELECT 1 FROM endpoint WHERE id = ANY ($1::bigint[]) AND usr <> '')"
        if not others or not await db.value(named, sorted(others)):
            mine.add(id)
    return mine


async def _awaited(db: Db, app: int, user: str, devices: set[int]) -> set[int]:
    """Of what is still to be looked up, the same."""
    mine: set[int] = set()
    changed: list[tuple[int, str]] = []
    for id, notification, target in await db.rows("SELECT id, notification, target FROM expansion WHERE app = $1", app):
        rest = without(target, user, devices)
        if rest is Listed.ALONE:
            mine.add(notification)
        elif isinstance(rest, str):
            changed.append((id, rest))
    for id, rest in sorted(changed):
        await db.run("UPDATE expansion SET target = $2 WHERE id = $1", id, rest)
    return mine
