"""The decisions about deliveries that no other table remembers, a row for each notification that a transaction decided
about.

The form of a row is described in `fanout.storage.decisions`. Its number is given by the database, in the order of the
decisions.
"""

from __future__ import annotations

import orjson

from fanout.storage.decisions import Entries, Row
from fanout.storage.packing import dumps
from fanout.storage.sql.db import Db

__all__ = ["Decisions", "rows_of"]


class Decisions(Entries):
    """Collects a transaction's decisions, and writes them in one statement."""

    __slots__ = ("_db",)

    def __init__(self, db: Db) -> None:
        super().__init__()
        self._db = db

    async def write(self, now: float) -> None:
        """Store it all."""
        if self.by_notification:
            await self._db.many(
                "INSERT INTO decision (notification, at, data) SELECT j.notification, $3, j.data "
                f"FROM {self._db.given(1, notification='bigint', data='text')}",
                [(notification, dumps(entries)) for notification, entries in self.by_notification.items()],
                now,
            )


async def rows_of(db: Db, number: int, since: float = 0.0) -> list[Row]:
    """The decisions about a notification (or, below zero, a binding) from `since` on, oldest first."""
    rows = await db.rows(
        "SELECT id, at, data FROM decision WHERE notification = $1 AND at >= $2 ORDER BY id", number, since
    )
    return [[id, at, orjson.loads(data)] for id, at, data in rows]
