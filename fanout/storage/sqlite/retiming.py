"""The clock was set back: what we made ourselves, a retry's time or a gate's, lies no further off than it was when it was written."""

from __future__ import annotations

from fanout.storage.sqlite.db import Db

__all__ = ["retimable", "retime"]

# By binding and lane, paused and held back ones too, so that an index is gone through and no table.
_EVERYWHERE = "binding IN (SELECT id FROM binding) AND lane BETWEEN -8 AND 8"
_LATER = "since > ?1 + 1.0"


def retimable(db: Db, now: float, stepped: bool) -> bool:
    """Whether to look: the last decision about a delivery, or a gate, is from the future."""
    return stepped or bool(
        db.value(
            "SELECT EXISTS (SELECT 1 FROM decision WHERE id = (SELECT max(id) FROM decision) AND at > ?1 + 1.0) "
            f"OR EXISTS (SELECT 1 FROM gate WHERE {_LATER})",
            now,
        )
    )


def retime(db: Db, now: float, stepped: bool) -> bool:
    """See `Storage.retime`."""
    before = db.connection.total_changes()
    db.run(f"UPDATE retry SET due_at = due_at - since + ?1, since = ?1 WHERE {_EVERYWHERE} AND {_LATER}", now)
    db.run(
        f"UPDATE chunk SET ready_at = ready_at - since + ?1, since = ?1 WHERE {_EVERYWHERE} AND NOT done AND owner IS NULL AND {_LATER}",
        now,
    )
    db.run(f"UPDATE gate SET until = until - since + ?1, since = ?1 WHERE {_LATER}", now)
    return db.connection.total_changes() > before
