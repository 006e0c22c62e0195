"""From an audience that was looked up to chunks, and to expansions for what comes later."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.shard import SHARDS
from fanout.storage.chunks import WIDE, Plan, Start
from fanout.storage.chunks import cut as cut_up
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import add_chunks, add_expansions, finish_ready

__all__ = ["cut", "store"]


async def cut(db: Db, starts: Sequence[Start]) -> Plan:
    """Chunks of what was looked up, or an expansion per binding. Fills in each start's total and expansions."""
    high = 0
    if any(start.kind in WIDE and start.found for start in starts):
        # An endpoint's number is one of this sequence times the number of shards, plus its shard.
        high = (int(await db.value("SELECT last_value FROM endpoint_number")) + 1) * SHARDS - 1
    return cut_up(starts, size=db.context.chunk, high=high)


async def store(db: Db, plan: Plan, now: float) -> int:
    """Store it, and finish what is for nobody; how many chunks are due. The notifications are held, or not yet known to others."""
    plan.number(await add_chunks(db, plan.chunks, now))
    await add_expansions(db, plan.expansions)
    await finish_ready(db, plan.empty, now)
    return plan.due
