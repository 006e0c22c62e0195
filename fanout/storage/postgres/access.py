"""The facet of keys and host names: `PostgresStorage.access`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fanout.core.access import Grant
from fanout.storage.access import COLUMNS, made, revoked, row_of
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.operations import Database

__all__ = ["ACCESS", "PostgresAccess"]

ACCESS = """
-- What callers present (`core.access`). `proof` lets nobody call.
CREATE TABLE access (
  id text COLLATE "C" PRIMARY KEY, app int NOT NULL, kind text NOT NULL, proof text NOT NULL, name text NOT NULL, role text NOT NULL,
  expires_at float8, made_at float8 NOT NULL, used_at float8
);
"""


class PostgresAccess:
    """`plugin.access.Access`, by the storage's own ways to read and write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grants(self) -> list[Grant]:
        """See `Access`."""
        found: list[Grant] = await self._database.look(_grants)
        return found

    async def grant(self, grant: Grant, now: float, *, by: str) -> bool:
        """See `Access`."""
        return bool(await self._database.write(_grant, replace(grant, made_at=now, used_at=None), by))

    async def revoke(self, app: str, id: str, now: float, *, by: str) -> bool:
        """See `Access`."""
        return bool(await self._database.write(_revoke, app, id, now, by))

    async def used(self, moments: Mapping[str, float]) -> None:
        """See `Access`."""
        if moments:
            await self._database.write(_used, dict(moments), durable=False, quiet=True)


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
        ours = "SELECT EXISTS (SELECT 1 FROM access WHERE id = $1 AND app = $2 AND proof = $3 AND made_at = $4)"
        return db.again and bool(await db.value(ours, grant.id, app, grant.proof, grant.made_at))
    await db.audit(grant.made_at, grant.app, made(grant, by))
    return True


async def _revoke(db: Db, app: str, id: str, now: float, by: str) -> bool:
    number = await db.app(app)
    rows = await db.rows("DELETE FROM access WHERE id = $1 AND app = $2 RETURNING kind, name", id, number)
    for kind, name in rows:
        await db.audit(now, app, revoked(id, kind, name, by))
    if rows or not db.again:
        return bool(rows)
    # An earlier run of the same operation may have done it, and its answer was never heard.
    line = "SELECT EXISTS (SELECT 1 FROM event WHERE app = $1 AND at = $2 AND kind = $3 AND data::json->>$4 = $5)"
    kinds = {"id": "audit.key.revoked", "host": "audit.host.removed"}
    found = [await db.value(line, number, now, kind, name, id) for name, kind in kinds.items()]
    return any(found)


async def _used(db: Db, moments: dict[str, float]) -> None:
    # Locked in the order of the ids: two processes write the same ones.
    await db.many(
        "UPDATE access x SET used_at = greatest(coalesce(x.used_at, 0), j.at) FROM unnest($1::text[], $2::float8[]) j (id, at) "
        "WHERE x.id = ANY (ARRAY[j.id])",
        sorted(moments.items()),
    )
