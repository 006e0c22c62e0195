"""From audiences and retry rows to chunks: which there are to be, and which of them wait for their turn.

Of a target of many chunks a few are due at a time, so that it does not stand in front of all that is sent after it. The
chunks are there from the beginning. Those that are not due stand `WAITS` above their lane (`fanout.storage.lanes`), and
an expansion of the kind `CHUNKS` lets them go one by one: its cursor is the last chunk that is due, and `high` the last
of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fanout.core.feed import Audience
from fanout.core.statemap import count_open
from fanout.storage.lanes import WAITS, waits
from fanout.storage.packing import dumps

__all__ = ["AT_ONCE", "CHUNKS", "COLUMNS", "TARGET", "WIDE", "NewChunk", "Plan", "Start", "cut", "gathered"]

WIDE = ("topic", "all")
"""Kinds of target whose audience is read bit by bit, and never as a whole."""
AT_ONCE = 4
"""Chunks of one target and binding that are due from the beginning."""
CHUNKS = "chunks"
TARGET = f'["{CHUNKS}",[]]'
"""The target of such an expansion, which names no recipient: its deliveries are counted already."""
COLUMNS = "notification, binding, lane, attempt, ready_at, open, low, high, states, crashes, part, settled_at, held"
"""Those of a chunk's row that `NewChunk.row` tells."""


@dataclass(slots=True)
class NewChunk:
    """A chunk to be stored: its `ids` ascend. `states` is None while all are open; otherwise none is."""

    notification: int
    binding: int
    lane: int
    attempt: int
    ready_at: float
    ids: Sequence[int]
    states: bytes | None = None
    crashes: int = 0
    part: int = 0

    def row(self, now: float) -> tuple[Any, ...]:
        """The values of `COLUMNS`."""
        ids, states, lane = self.ids, self.states, self.lane
        still_open = len(ids) if states is None else count_open(states)
        map, over = bytes(len(ids)) if states is None else states, None if still_open else now
        what = (self.notification, self.binding, lane, self.attempt, self.ready_at, still_open, ids[0], ids[-1])
        return (*what, map, self.crashes, self.part, over, waits(lane))


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
    """The rows to be stored for some notifications, whose own rows say the totals and expansions of `starts`.

    An expansion is (notification, app, binding or 0, lane, due at, highest id, target, id that it begins after).
    """

    starts: Sequence[Start]
    chunks: list[NewChunk] = field(default_factory=list)
    expansions: list[list[Any]] = field(default_factory=list)
    turns: list[tuple[list[Any], int, int]] = field(default_factory=list)
    """An expansion without its last columns, and which of `chunks` are its last and the last that is due."""

    def schedule(self, start: Start, target: str) -> None:
        """One that is due later: its target is looked up then."""
        self.expansions.append([start.notification, start.app, 0, start.lane, start.due_at, 0, target, 0])

    def number(self, chunks: Sequence[int]) -> None:
        """The chunks' numbers are known: complete the expansions that name some of them."""
        for expansion, last, due in self.turns:
            expansion += [chunks[last], TARGET, chunks[due]]

    @property
    def empty(self) -> list[int]:
        """The notifications without a recipient."""
        return [start.notification for start in self.starts if not start.total and not start.expansions]

    @property
    def due(self) -> int:
        """How many of the chunks do not wait for their turn."""
        return sum(not waits(chunk.lane) for chunk in self.chunks)


def cut(starts: Sequence[Start], *, size: int, high: int) -> Plan:
    """Chunks of the audience that was looked up, or an expansion per binding up to the endpoint `high`."""
    plan = Plan(starts)
    for start in starts:
        for binding, ids in start.found.items():
            expansion: list[Any] = [start.notification, start.app, binding, start.lane, start.due_at]
            if start.kind in WIDE:
                target = dumps([start.kind, start.names, *([start.audience.dump()] if start.audience else [])])
                plan.expansions.append([*expansion, high, target, 0])
                continue
            parts = [ids] if len(ids) <= size else [ids[at : at + size] for at in range(0, len(ids), size)]
            for i, part in enumerate(parts):
                lane = start.lane if i < AT_ONCE else start.lane + WAITS
                plan.chunks.append(NewChunk(start.notification, binding, lane, 1, start.due_at, part))
            if len(parts) > AT_ONCE:
                plan.expansions.append(expansion)
                last = len(plan.chunks) - 1
                plan.turns.append((expansion, last, last - len(parts) + AT_ONCE))
    return plan


def gathered(rows: Sequence[Sequence[Any]], size: int) -> tuple[list[NewChunk], Counter[tuple[int, int, str]]]:
    """The chunks to be added for these retry rows, and the change of the backlog (numbers below zero).

    A row is (notification, attempt, endpoint, due at, binding, lane, waiting).
    """
    groups: dict[tuple[int, int, int, int], list[tuple[int, float]]] = {}
    left: Counter[tuple[int, int, str]] = Counter()
    for notification, attempt, endpoint, due_at, binding, lane, waiting in rows:
        groups.setdefault((notification, attempt, binding, lane), []).append((endpoint, due_at))
        left[notification, binding, waiting] -= 1
    chunks = []
    for (notification, attempt, binding, lane), group in groups.items():
        group.sort()
        for first in range(0, len(group), size):
            piece = group[first : first + size]
            due_at = min(due for _, due in piece)
            ids = [endpoint for endpoint, _ in piece]
            chunks.append(NewChunk(notification, binding, lane, attempt, due_at, ids))
    return chunks, left
