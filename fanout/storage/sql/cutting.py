"""From an audience that was looked up to chunks, and to expansions for the endpoints that come later."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.storage.chunks import WIDE, Plan, Start
from fanout.storage.chunks import cut as cut_up
from fanout.storage.sql.db import Db, made_once

__all__ = ["cut", "store"]


async def cut(db: Db, starts: Sequence[Start]) -> Plan:
    """Chunks of the audience that was looked up, or an expansion per binding."""
    wide = any(start.kind in WIDE and start.found for start in starts)
    return cut_up(starts, size=db.context.chunk, high=await db.highest_endpoint() if wide else 0)


async def store(db: Db, plan: Plan, now: float) -> None:
    """Store it, and finish notifications without a recipient. The notifications are held, or not yet known to
    others."""
    plan.number(await db.hot.add_chunks(db, plan.chunks, now))
    if plan.expansions:
        await db.many(_expansions(db), plan.expansions)
    if empty := plan.empty:
        await db.hot.finish_ready(db, empty, now)


@made_once
def _expansions(db: Db) -> str:
    # (notification, app, binding or 0, lane, due at, highest id, target, id that it begins after)
    columns = {"notification": "bigint", "app": "int", "binding": "int", "lane": "smallint", "due_at": "float8"}
    columns |= {"high": "bigint", "target": "text", "cursor": "bigint"}
    return f"INSERT INTO expansion ({', '.join(columns)}) SELECT * FROM {db.given(1, **columns)}"
