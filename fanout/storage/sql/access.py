"""The facet of keys and host names: `SqlStorage.access`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import orjson

from fanout.core.access import Grant
from fanout.storage.access import COLUMNS, made, revoked, row_of
from fanout.storage.sql.db import Db
from fanout.storage.sql.driver import Driver

__all__ = ["SqlAccess"]

_TOLD = {"audit.key.revoked": "id", "audit.host.removed": "host"}
"""The name in the audit log of a grant that was taken out, by its kind."""


class SqlAccess:
    """`plugin.access.Access`, by a driver's ways to read and write."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def grants(self) -> list[Grant]:
        """See `Access`."""
        return await self._driver.look(_grants)

    async def grant(self, grant: Grant, now: float, *, by: str) -> bool:
        """See `Access`."""
        return await self._driver.write(_grant, replace(grant, made_at=now, used_at=None), by)

    async def revoke(self, app: str, id: str, now: float, *, by: str) -> bool:
        """See `Access`."""
        return await self._driver.write(_revoke, app, id, now, by)

    async def used(self, moments: Mapping[str, float]) -> None:
        """See `Access`."""
        if moments:
            await self._driver.write(_used, dict(moments), durable=False, quiet=True)


async def _grants(db: Db) -> list[Grant]:
    columns = COLUMNS.split(", ")
    rows = await db.rows(
        f"SELECT p.name, x.{', x.'.join(columns)} FROM access x JOIN app p ON p.id = x.app ORDER BY x.id"
    )
    return [Grant(app=app, **dict(zip(columns, row, strict=True))) for app, *row in rows]


async def _grant(db: Db, grant: Grant, by: str) -> bool:
    app = await db.app(grant.app, create=True)
    entered = await db.value(
        f"INSERT INTO access (app, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING RETURNING 1",
        app,
        *row_of(grant),
    )
    if entered is None:
        ours = "SELECT 1 FROM access WHERE id = $1 AND app = $2 AND proof = $3 AND made_at = $4"
        return db.again and await db.value(ours, grant.id, app, grant.proof, grant.made_at) is not None
    await db.audit(grant.made_at, grant.app, made(grant, by))
    return True


async def _revoke(db: Db, app: str, id: str, now: float, by: str) -> bool:
    number = await db.app(app)
    row = await db.row("DELETE FROM access WHERE id = $1 AND app = $2 RETURNING kind, name", id, number)
    if row is not None:
        kind, name = row
        await db.audit(now, app, revoked(id, kind, name, by))
    if row is not None or not db.again:
        return row is not None
    # An earlier run of the same operation may have done it, and its answer was never heard.
    lines = await db.rows(
        "SELECT kind, data FROM event WHERE app = $1 AND at = $2 AND kind IN ('audit.key.revoked', 'audit.host.removed')",
        number,
        now,
    )
    return any(orjson.loads(data).get(_TOLD[kind]) == id for kind, data in lines)


async def _used(db: Db, moments: dict[str, float]) -> None:
    # Locked in the order of the ids: two processes write the same ones.
    await db.many(
        "UPDATE access SET used_at = CASE WHEN access.used_at > j.at THEN access.used_at ELSE j.at END "
        f"FROM {db.given(1, id='text', at='float8')} WHERE {db.keyed('access.id', 'j.id')}",
        sorted(moments.items()),
    )
