"""Expand: due schedules are looked up, and audiences are cut into chunks a bounded number ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fanout.core.feed import Audience
from fanout.core.model import LANES
from fanout.storage.chunks import CHUNKS, WIDE, NewChunk, Start
from fanout.storage.lanes import OF_WORKERS
from fanout.storage.sql import turns
from fanout.storage.sql.audience import touched
from fanout.storage.sql.cutting import cut, store
from fanout.storage.sql.db import Db
from fanout.storage.sql.feed_audience import look_up_some
from fanout.storage.sql.ledger import hold

__all__ = ["expand", "expandable", "look_up_all"]

_STARTS = 1000
"""Schedules that one call begins at most."""
_SOURCES = 64
"""Expansions of a lane that take turns in one call."""


async def expandable(db: Db, app: str, binding: str, now: float, ahead: int) -> bool:
    """Whether something is due to be expanded, and the binding is not paused. Nothing is done by it: `expand` looks
    again."""
    db.silent = True
    number = await db.app(app)
    return bool(
        await db.value(
            f"SELECT EXISTS (SELECT 1 FROM expansion WHERE app = $1 AND binding IN (0, $2) AND {OF_WORKERS} AND due_at <= $3) "
            "AND NOT EXISTS (SELECT 1 FROM control WHERE binding = $2 AND paused)",
            number,
            await db.binding(number, binding),
            now,
        )
    )


async def look_up_all(db: Db, starts: Sequence[Start], now: float) -> None:
    """Find the audience of each: endpoints, or for a topic or broadcast the bindings. And fill in the totals and
    expansions that come of it."""
    some = [start for start in starts if start.kind not in WIDE and start.audience is not None]
    if some:
        await look_up_some(db, some, now)
    chosen = [start for start in starts if start.kind not in WIDE and start.audience is None]
    if chosen:
        found = await db.hot.look_up(db, [(start.app, start.kind, start.names) for start in chosen])
        for start, each in zip(chosen, found, strict=True):
            start.found = each
    for start in starts:
        if start.kind in WIDE:
            start.found = {binding: [] for binding in await touched(db, start.app, start.kind, start.names)}
        start.total, start.expansions = sum(map(len, start.found.values())), len(start.found) * (start.kind in WIDE)


async def expand(db: Db, app: str, binding: str, now: float, ahead: int) -> int:
    """Begin the schedules that are due, then let chunks go from expansions, each in turn, until `ahead` wait in the
    lane."""
    number = await db.app(app)
    lookup = await db.binding(number, binding)
    if await db.value("SELECT paused FROM control WHERE binding = $1", lookup):
        return 0
    made = await _begin_schedules(db, number, now)
    for lane in range(len(LANES)):
        sources = await _due(db, number, lookup, lane, now)
        if sources:
            waiting = await db.value(
                "SELECT count(*) FROM (SELECT 1 FROM chunk WHERE binding = $1 AND lane = $2 AND NOT done AND ready_at <= $3 LIMIT $4) c",
                lookup,
                lane,
                now,
                ahead,
            )
            made += await _take_turns(db, sources, binding, lookup, lane, ahead - waiting, now)
    return made


async def _begin_schedules(db: Db, app: int, now: float) -> int:
    which = f"binding = 0 AND {OF_WORKERS}"
    due = await db.rows(
        f"SELECT notification FROM expansion WHERE app = $1 AND {which} AND due_at <= $2 ORDER BY lane, due_at LIMIT $3",
        app,
        now,
        _STARTS,
    )
    mine = await hold(db, {notification for (notification,) in due}, wait=False)
    if not mine:
        return 0
    rows = await db.rows(
        f"SELECT lane, due_at, id, notification, target FROM expansion WHERE notification {db.among(1, 'bigint')} AND app = $2 "
        f"AND {which} AND due_at <= $3",
        mine,
        app,
        now,
    )
    rows = sorted(map(tuple, rows))
    await db.run(f"DELETE FROM expansion WHERE id {db.among(1, 'bigint')}", [row[2] for row in rows])
    starts = [Start(notification, app, lane, due_at, *_target(text)) for lane, due_at, _, notification, text in rows]
    await look_up_all(db, starts, now)
    plan = await cut(db, starts)
    ledger = db.hot.ledger(db)
    for start in starts:
        change = ledger.of(start.notification)
        change.total += start.total
        change.expansions += start.expansions - 1
    await ledger.write(now)
    await store(db, plan, now)
    return plan.due


def _target(text: str) -> tuple[str, list[Any], Audience | None]:
    kind, names, *audience = orjson.loads(text)
    return kind, names, Audience.load(audience[0]) if audience else None


@dataclass(slots=True)
class _Source:
    """An expansion whose notification is held. `parts` are chunks that can be let go: endpoints, or a chunk's
    number."""

    id: int
    notification: int
    cursor: int
    high: int
    kind: str
    names: list[Any]
    audience: Audience | None
    parts: list[Any] = field(default_factory=list)
    dry: bool = False
    """Whether there is nothing behind `parts`."""
    total: int = 0


async def _due(db: Db, app: int, binding: int, lane: int, now: float) -> list[_Source]:
    """Expansions whose turn it is, but for those of a notification that another transaction holds."""
    rows = await db.rows(
        "SELECT id, notification FROM expansion WHERE app = $1 AND binding = $2 AND lane = $3 AND due_at <= $4 "
        f"ORDER BY due_at, id LIMIT {_SOURCES}",
        app,
        binding,
        lane,
        now,
    )
    mine = set(await hold(db, {notification for _, notification in rows}, wait=False))
    ids = [id for id, notification in rows if notification in mine]
    if not ids:
        return []
    # In a statement of its own, which sees the commits made while other transactions held the notifications: a pause
    # among them.
    found = await db.rows(
        f"SELECT id, notification, cursor, high, target FROM expansion WHERE id {db.among(1, 'bigint')} AND lane = $2",
        ids,
        lane,
    )
    sources = {
        id: _Source(id, notification, cursor, high, *_target(text)) for id, notification, cursor, high, text in found
    }
    return [sources[id] for id in ids if id in sources]


async def _take_turns(db: Db, sources: list[_Source], name: str, binding: int, lane: int, room: int, now: float) -> int:
    """A chunk from each, round by round, until there is no room; how many. Moves the cursors."""
    chunks: list[NewChunk] = []
    freed: list[int] = []
    over: list[_Source] = []
    moved: list[_Source] = []
    left = list(sources)
    while room > 0 and left:
        for source in left[:room]:
            if not source.parts:
                await _fill(db, source, name, binding, -(-room // len(left)))
            if source not in moved:
                moved.append(source)
            if source.parts:
                piece = source.parts.pop(0)
                if source.kind == CHUNKS:
                    freed.append(piece)
                    source.cursor = piece
                else:
                    # Due from now, not from when it was sent: a broadcast's chunks would go before all that was sent
                    # meanwhile.
                    chunks.append(NewChunk(source.notification, binding, lane, 1, now, sorted(piece)))
                    source.cursor = piece[-1]
                    source.total += len(piece)
                room -= 1
            if source.dry and not source.parts:
                over.append(source)
                left.remove(source)
    await turns.let_go(db, freed, now)
    await db.hot.add_chunks(db, chunks, now)
    await _store(db, [source for source in moved if source not in over], over, now)
    return len(chunks) + len(freed)


async def _store(db: Db, moved: list[_Source], over: list[_Source], now: float) -> None:
    await db.many(
        f"UPDATE expansion AS e SET cursor = j.cursor FROM {db.given(1, id='bigint', cursor='bigint')} WHERE {db.keyed('e.id', 'j.id')}",
        [(source.id, source.cursor) for source in moved],
    )
    if over:
        await db.run(f"DELETE FROM expansion WHERE id {db.among(1, 'bigint')}", [source.id for source in over])
    ledger = db.hot.ledger(db)
    for source in (*moved, *over):
        ledger.of(source.notification).total += source.total
    for source in over:
        if source.kind == CHUNKS:
            # Its deliveries were counted when it was put, and so was it not.
            continue
        ledger.of(source.notification).expansions -= 1
    await ledger.write(now)
    await ledger.finish(now)


async def _fill(db: Db, source: _Source, name: str, binding: int, parts: int) -> None:
    """Read so many chunks ahead."""
    size = db.context.chunk
    if source.kind == CHUNKS:
        found = await turns.held_back(db, source.notification, binding, source.cursor, source.high, parts + 1)
        source.parts = found[:parts]
        source.dry = len(found) <= parts
        return
    topic = source.names[0] if source.kind == "topic" else None
    ids = await db.hot.audience(db, source.audience, name, binding, topic, source.cursor, source.high, parts * size)
    source.parts = [ids[first : first + size] for first in range(0, len(ids), size)]
    source.dry = len(ids) < parts * size
