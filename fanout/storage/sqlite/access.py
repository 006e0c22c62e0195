"""The facet of keys and host names: `SqliteStorage.access`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from fanout.core.access import Grant
from fanout.storage.access import COLUMNS, made, revoked, row_of
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["ACCESS", "SqliteAccess"]

ACCESS = """
-- What callers present (`core.access`). `proof` lets nobody call.
CREATE TABLE access (
  id TEXT PRIMARY KEY, app INTEGER NOT NULL, kind TEXT NOT NULL, proof TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
  expires_at REAL, made_at REAL NOT NULL, used_at REAL
) WITHOUT ROWID;
"""


class SqliteAccess:
    """`plugin.access.Access`, by the storage's own ways to read and write."""

    def __init__(self, read: Callable[..., Awaitable[Any]], write: Callable[..., Awaitable[Any]]) -> None:
        self._read = read
        self._write = write

    async def grants(self) -> list[Grant]:
        """See `Access`."""
        found: list[Grant] = await self._read(_grants)
        return found

    async def grant(self, grant: Grant, now: float, *, by: str) -> bool:
        """See `Access`."""
        return bool(await self._write(_grant, replace(grant, made_at=now, used_at=None), by))

    async def revoke(self, app: str, id: str, now: float, *, by: str) -> bool:
        """See `Access`."""
        return bool(await self._write(_revoke, app, id, now, by))

    async def used(self, moments: Mapping[str, float]) -> None:
        """See `Access`."""
        if moments:
            await self._write(_used, dict(moments))


def _grants(db: Db) -> list[Grant]:
    columns = COLUMNS.split(", ")
    rows = db.rows("p.name, x." + ", x.".join(columns), "access x JOIN app p ON p.id = x.app ORDER BY x.id")
    return [Grant(app=app, **dict(zip(columns, row, strict=True))) for app, *row in rows]


def _grant(db: Db, grant: Grant, by: str) -> bool:
    if db.value("SELECT 1 FROM access WHERE id = ?", grant.id) is not None:
        return False
    app = db.app(grant.app, create=True)
    db.run(f"INSERT INTO access (app, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", app, *row_of(grant))
    db.audit(grant.made_at, grant.app, made(grant, by))
    return True


def _revoke(db: Db, app: str, id: str, now: float, by: str) -> bool:
    number = db.app(app)
    rows = db.rows("kind, name", "access WHERE id = ? AND app = ?", id, number)
    for kind, name in rows:
        db.run("DELETE FROM access WHERE id = ?", id)
        db.audit(now, app, revoked(id, kind, name, by))
    return bool(rows)


def _used(db: Db, moments: dict[str, float]) -> None:
    db.run(
        "UPDATE access SET used_at = max(coalesce(used_at, 0), u.value) FROM json_each(?) u WHERE u.key = access.id",
        dumps(moments),
    )
