"""The clock was set back: an instant of our own making, a retry's or a gate's, lies no further off than it was when it
was written."""

from __future__ import annotations

from fanout.storage.sql.db import Db, column
from fanout.storage.sql.ledger import hold

__all__ = ["retimable", "retime"]

# By binding and lane, paused and held back ones too, so that an index is gone through and no table.
_EVERYWHERE = "binding IN (SELECT id FROM binding) AND lane BETWEEN -8 AND 8"
_LATER = "since > CAST($1 AS float8) + 1"


async def retimable(db: Db, now: float, stepped: bool) -> bool:
    """Whether to look: the last decision about a delivery, or a gate, is from the future."""
    return stepped or bool(
        await db.value(
            "SELECT EXISTS (SELECT 1 FROM decision WHERE id = (SELECT max(id) FROM decision) AND at > CAST($1 AS float8) + 1) "
            f"OR EXISTS (SELECT 1 FROM gate WHERE {_LATER})",
            now,
        )
    )


async def retime(db: Db, now: float, stepped: bool) -> bool:
    """See `Storage.retime`."""
    open_chunks = f"{_EVERYWHERE} AND NOT done AND owner IS NULL AND {_LATER}"
    found: set[int] = set()
    for which in (f"retry WHERE {_EVERYWHERE} AND {_LATER}", f"chunk WHERE {open_chunks}"):
        found.update(await column(db, f"SELECT DISTINCT notification FROM {which}", now))
    await hold(db, found)
    moved = 0
    for statement in (
        f"UPDATE retry SET due_at = due_at - since + $1, since = $1 WHERE {_EVERYWHERE} AND {_LATER}",
        f"UPDATE chunk SET ready_at = ready_at - since + $1, since = $1 WHERE {open_chunks}",
        f"UPDATE gate SET until = until - since + $1, since = $1 WHERE {_LATER}",
    ):
        moved += await db.run(statement, now)
    db.silent = not moved
    return moved > 0
