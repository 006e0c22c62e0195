"""Turns: of a target of many chunks a few are due at a time, so that it does not stand in front of all that is sent after it.

The chunks are there from the beginning. Those that are not due stand in the lane `lane + WAITS`, and an expansion of the kind
`CHUNKS` lets them go one by one: its cursor is the last chunk that is due, and `high` the last of all.
"""

from __future__ import annotations

from fanout.storage.sqlite.db import Db

__all__ = ["AT_ONCE", "CHUNKS", "TARGET", "WAITS", "release"]

AT_ONCE = 4
"""Chunks of one target and binding that are due from the beginning."""
WAITS = 4
"""What the lane of a chunk is raised by that awaits its turn."""
CHUNKS = "chunks"
TARGET = f'["{CHUNKS}",[]]'
"""The target of such an expansion, which names nobody: its deliveries are counted already."""


def release(db: Db, cursor: int, high: int, now: float) -> tuple[int, bool]:
    """Let the next chunk go: its number (0 where none was left), and whether it was the last."""
    rows = db.rows(
        "id",
        f"(SELECT id FROM chunk WHERE id > ? AND id <= ? AND open > 0 AND lane >= {WAITS} ORDER BY id LIMIT 2)",
        cursor,
        high,
    )
    if not rows:
        return 0, True
    db.run(f"UPDATE chunk SET lane = lane - {WAITS}, ready_at = ? WHERE id = ?", now, rows[0][0])
    return rows[0][0], len(rows) == 1
