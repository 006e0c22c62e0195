"""Turns: the chunks of a large target that are held back are let go one by one (see `fanout.storage.chunks`)."""

from __future__ import annotations

from fanout.storage import lanes
from fanout.storage.sql.db import Db, column

__all__ = ["held_back", "let_go"]


async def held_back(db: Db, notification: int, binding: int, cursor: int, high: int, limit: int) -> list[int]:
    """The next chunks of that notification and binding whose turn has not come, at most `limit`."""
    return await column(
        db,
        f"SELECT id FROM chunk WHERE notification = $1 AND NOT done AND binding = $2 AND id > $3 AND id <= $4 AND {lanes.IN_TURN} "
        "ORDER BY id LIMIT $5",
        notification,
        binding,
        cursor,
        high,
        limit,
    )


async def let_go(db: Db, chunks: list[int], now: float) -> None:
    """These are due from now."""
    if chunks:
        await db.run(f"UPDATE chunk SET {lanes.LET_GO}, ready_at = $2 WHERE id {db.among(1, 'bigint')}", chunks, now)
