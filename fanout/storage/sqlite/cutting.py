"""From an audience that was looked up to chunks, and to expansions for what comes later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fanout.core.feed import Audience
from fanout.storage.sqlite import turns
from fanout.storage.sqlite.audience import WIDE
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.ledger import NewChunk, add_chunks, add_expansions, finish_ready

__all__ = ["Plan", "Start", "cut"]


@dataclass(slots=True)
class Start:
    """A notification whose audience is to be looked up now. `names` are users, a topic, or endpoint ids."""

    notification: int
    app: int
    lane: int
    due_at: float
    kind: str
    names: list[Any]
    audience: Audience | None = None
    total: int = 0
    expansions: int = 0
    found: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What is to be stored for some notifications, whose own rows must say the totals and expansions of `starts`."""

    starts: Sequence[Start]
    chunks: list[NewChunk] = field(default_factory=list)
    expansions: list[list[Any]] = field(default_factory=list)
    turns: list[tuple[list[Any], int, int]] = field(default_factory=list)
    """An expansion without its last columns, and which of `chunks` are its last and the last that is due."""

    def schedule(self, start: Start, target: str) -> None:
        """One that is due later: its target is looked up then."""
        start.expansions = 1
        self.expansions.append([start.notification, start.app, 0, start.lane, start.due_at, 0, target, 0])

    def store(self, db: Db, now: float) -> int:
        """Store it, and finish what is for nobody; how many chunks are due."""
        first = add_chunks(db, self.chunks, now)
        for expansion, last, due in self.turns:
            expansion += [first + last, turns.TARGET, first + due]
        add_expansions(db, self.expansions)
        empty = [start.notification for start in self.starts if not start.total and not start.expansions]
        finish_ready(db, empty, now)
        return sum(chunk.lane < turns.WAITS for chunk in self.chunks)


def cut(db: Db, starts: Sequence[Start]) -> Plan:
    """Chunks of what was looked up, or an expansion per binding. Fills in each start's total and expansions."""
    plan = Plan(starts)
    size = db.context.chunk
    high = db.next_id("endpoint") - 1
    for start in starts:
        for binding, ids in start.found.items():
            if start.kind in WIDE:
                target = dumps([start.kind, start.names, *([start.audience.dump()] if start.audience else [])])
                place = [start.notification, start.app, binding, start.lane, start.due_at]
                plan.expansions.append([*place, high, target, 0])
                start.expansions += 1
                continue
            parts = [ids[first : first + size] for first in range(0, len(ids), size)]
            for i, part in enumerate(parts):
                lane = start.lane if i < turns.AT_ONCE else start.lane + turns.WAITS
                plan.chunks.append(NewChunk(start.notification, binding, lane, 1, start.due_at, part))
            if len(parts) > turns.AT_ONCE:
                expansion: list[Any] = [start.notification, start.app, binding, start.lane, start.due_at]
                plan.expansions.append(expansion)
                last = len(plan.chunks) - 1
                plan.turns.append((expansion, last, last - len(parts) + turns.AT_ONCE))
            start.total += len(ids)
    return plan
