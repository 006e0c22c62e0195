"""Statistics of the tables: taken when much has changed at once, instead of a minute later by the server, or
(autovacuum off) never.

The statements here have one plan with any statistics (`db`). Lists, counts and operators' own queries profit from them.
"""

from __future__ import annotations

from fanout.storage.postgres.db import Db

__all__ = ["ANALYZE", "Imported", "analyze"]

_FIRST = 1000
ANALYZE = "ANALYZE endpoint, address, endpoint_tag"


class Imported:
    """Counts endpoints that are entered many at a time, and says when statistics are due: at the first thousand, and at
    each doubling."""

    def __init__(self) -> None:
        self._entered = 0
        self._due = _FIRST

    def due(self, entered: int) -> bool:
        """So many more have been entered: whether statistics are to be taken now. Pure but for the count."""
        self._entered += entered
        if self._entered < self._due:
            return False
        self._due = 2 * self._entered
        return True


async def analyze(db: Db) -> None:
    """Of the directory. A role that does not own the tables is told so by the server, and nothing is done."""
    await db.run(ANALYZE)
