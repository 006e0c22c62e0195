"""From an audience that was looked up to chunks, and to expansions for what comes later."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.storage.chunks import Plan, Start
from fanout.storage.chunks import cut as cut_up
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.ledger import add_chunks, add_expansions, finish_ready

__all__ = ["cut", "store"]


def cut(db: Db, starts: Sequence[Start]) -> Plan:
    """Chunks of what was looked up, or an expansion per binding. Fills in each start's total and expansions."""
    return cut_up(starts, size=db.context.chunk, high=db.next_id("endpoint") - 1)


def store(db: Db, plan: Plan, now: float) -> int:
    """Store it, and finish what is for nobody; how many chunks are due."""
    first = add_chunks(db, plan.chunks, now)
    plan.number(range(first, first + len(plan.chunks)))
    add_expansions(db, plan.expansions)
    finish_ready(db, plan.empty, now)
    return plan.due
