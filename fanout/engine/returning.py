"""The step by which a dispatcher brings forward the work of a gate that has opened."""

from __future__ import annotations

from fanout.core.comeback import PART
from fanout.engine.ports import Binding
from fanout.plugin import Storage

__all__ = ["bring_forward"]


async def bring_forward(state: Binding, storage: Storage, now: float) -> None:
    """Make the next part due (`Comeback`), where one is to come at `now` (UNIX seconds)."""
    if before := state.comeback.part(now):
        moved = await storage.bring_forward(state.app, state.binding, before, now, limit=PART)
        state.comeback.moved(moved, now)
