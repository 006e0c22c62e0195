"""The step by which a dispatcher brings forward the work of a gate that has opened."""

from __future__ import annotations

from fanout.core.rescheduling import PART
from fanout.engine.ports import Binding
from fanout.plugin import Storage

__all__ = ["bring_forward"]


async def bring_forward(state: Binding, storage: Storage, now: float) -> None:
    """Make the next part due (`Rescheduling`), where one is to come at `now` (UNIX seconds)."""
    if before := state.rescheduling.part(now):
        bring = getattr(storage, "bring_forward", None)
        # A storage of an earlier version cannot: its deliveries come at their times.
        moved = 0 if bring is None else await bring(state.app, state.binding, before, now, limit=PART)
        state.rescheduling.moved(moved, now)
