"""Turns: the chunks of a large target that are held back are let go one by one (see `fanout.storage.chunks`)."""

from __future__ import annotations

from fanout.storage import lanes
from fanout.storage.sqlite.db import Db

__all__ = ["release"]


def release(db: Db, cursor: int, high: int, now: float) -> tuple[int, bool]:
    """Let the next chunk go: its number (0 where none was left), and whether it was the last."""
    rows = db.rows(
        "id",
        f"(SELECT id FROM chunk WHERE id > ? AND id <= ? AND NOT done AND {lanes.IN_TURN} ORDER BY id LIMIT 2)",
        cursor,
        high,
    )
    if not rows:
        return 0, True
    db.run(f"UPDATE chunk SET {lanes.LET_GO}, ready_at = ? WHERE id = ?", now, rows[0][0])
    return rows[0][0], len(rows) == 1
