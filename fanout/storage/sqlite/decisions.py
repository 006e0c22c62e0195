"""What was decided about deliveries and no other table remembers, a row for each notification that a transaction decided about.

What a row holds is described in `fanout.storage.decisions`.
"""

from __future__ import annotations

from fanout.storage.decisions import Entries, Row
from fanout.storage.sqlite.db import Db

__all__ = ["LAST_DECISION", "Decisions", "rows_of"]

LAST_DECISION = "(SELECT coalesce(max(id), 0) FROM decision)"
"""Its number, so that something can be said to come after it."""


class Decisions(Entries):
    """Collects what a transaction decides, and writes it in one statement."""

    __slots__ = ("_db",)

    def __init__(self, db: Db) -> None:
        super().__init__()
        self._db = db

    def write(self, now: float) -> None:
        """Store it all."""
        self._db.many(
            "INSERT INTO decision (notification, at, data) SELECT value->>0, ?2, value->1 FROM jsonb_each(?1)",
            self.by_notification.items(),
            now,
        )


def rows_of(db: Db, number: int, since: float = 0.0) -> list[Row]:
    """What was decided about a notification (or, below zero, a binding) from `since` on, oldest first."""
    # The texts are put together as they are: with json_group_array, which parses and writes them anew, it took twice as long.
    found: list[Row] = db.json(
        "SELECT '[' || coalesce(group_concat('[' || id || ',' || json_quote(at) || ',' || data || ']', ','), '') || ']' "
        "FROM (SELECT id, at, data FROM decision WHERE notification = ? AND at >= ? ORDER BY id)",
        number,
        since,
    )
    return found
