"""Expand: due schedules are looked up, and audiences are cut into chunks a bounded number ahead."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass, field
from typing import Any

import orjson

from fanout.core.feed import Audience
from fanout.core.model import LANES
from fanout.core.shard import SHARDS
from fanout.storage.chunks import CHUNKS, WIDE, NewChunk, Start
from fanout.storage.lanes import OF_WORKERS
from fanout.storage.postgres.audience import look_up
from fanout.storage.postgres.cutting import cut, store
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.feed_audience import condition, look_up_some
from fanout.storage.postgres.ledger import Ledger, add_chunks
from fanout.storage.sql import turns
from fanout.storage.sql.audience import touched
from fanout.storage.sql.ledger import hold

__all__ = ["expand", "expandable", "look_up_all"]

_STARTS = 1000
"""Schedules that one call begins at most."""
_SOURCES = 64
"""Expansions of a lane that take turns in one call."""


async def expandable(db: Db, app: str, binding: str, now: float) -> bool:
    """Whether something is due to be expanded, and the binding is not paused. Nothing is done by it: `expand` looks again."""
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


async def look_up_all(db: Db, starts: list[Start], now: float) -> None:
    """Find the audience of each: endpoints, or for a topic or broadcast the bindings."""
    some = [start for start in starts if start.kind not in WIDE and start.audience is not None]
    if some:
        await look_up_some(db, some, now)
    chosen = [start for start in starts if start.kind not in WIDE and start.audience is None]
    if chosen:
        found = await look_up(db, [(start.app, start.kind, start.names) for start in chosen])
        for start, each in zip(chosen, found, strict=True):
            start.found = each
    for start in starts:
        if start.kind in WIDE:
            start.found = {binding: [] for binding in await touched(db, start.app, start.kind, start.names)}


async def expand(db: Db, app: str, binding: str, now: float, ahead: int) -> int:
    """Begin the schedules that are due, then let chunks go from expansions, each in turn, until `ahead` wait in the lane."""
    number = await db.app(app)
    place = await db.binding(number, binding)
    if await db.value("SELECT paused FROM control WHERE binding = $1", place):
        return 0
    made = await _begin_schedules(db, number, now)
    for lane in range(len(LANES)):
        sources = await _due(db, number, place, lane, now)
        if sources:
            waiting = await db.value(
                "SELECT count(*) FROM (SELECT 1 FROM chunk WHERE binding = $1 AND lane = $2 AND NOT done AND ready_at <= $3 LIMIT $4) c",
                place,
                lane,
                now,
                ahead,
            )
            made += await _take_turns(db, sources, binding, place, lane, ahead - waiting, now)
    return made


async def _begin_schedules(db: Db, app: int, now: float) -> int:
    due = await db.rows(
        f"SELECT notification FROM expansion WHERE app = $1 AND binding = 0 AND {OF_WORKERS} AND due_at <= $2 "
        "ORDER BY lane, due_at LIMIT $3",
        app,
        now,
        _STARTS,
    )
    mine = await hold(db, {row[0] for row in due}, wait=False)
    if not mine:
        return 0
    rows = await db.rows(
        f"DELETE FROM expansion WHERE notification = ANY($1::bigint[]) AND app = $2 AND binding = 0 AND {OF_WORKERS} AND due_at <= $3 "
        "RETURNING id, notification, lane, due_at, target",
        mine,
        app,
        now,
    )
    starts: list[Start] = []
    for _, notification, lane, due_at, target in sorted(map(tuple, rows), key=lambda row: (row[2], row[3], row[0])):
        kind, names, *audience = orjson.loads(target)
        some = Audience.load(audience[0]) if audience else None
        starts.append(Start(notification, app, lane, due_at, kind, names, some))
    await look_up_all(db, starts, now)
    plan = await cut(db, starts)
    ledger = Ledger(db)
    for start in starts:
        change = ledger.of(start.notification)
        change.total += start.total
        change.expansions += start.expansions - 1
    await ledger.write(now)
    return await store(db, plan, now)


@dataclass(slots=True)
class _Source:
    """An expansion whose notification is held. `parts` are chunks that can be let go: endpoints, or a chunk's number."""

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
    """Those whose turn it is, but for what belongs to a notification in other hands."""
    which = "app = $1 AND binding = $2 AND lane = $3 AND due_at <= $4"
    place = (app, binding, lane, now)
    due = await db.rows(
        f"SELECT notification FROM expansion WHERE {which} ORDER BY due_at, id LIMIT {_SOURCES}", *place
    )
    mine = await hold(db, {row[0] for row in due}, wait=False)
    if not mine:
        return []
    rows = await db.rows(
        f"SELECT id, notification, cursor, high, target FROM expansion WHERE {which} AND notification = ANY($5::bigint[]) "
        f"ORDER BY due_at, id LIMIT {_SOURCES}",
        *place,
        mine,
    )
    sources = []
    for id, notification, cursor, high, target in rows:
        kind, names, *audience = orjson.loads(target)
        some = Audience.load(audience[0]) if audience else None
        sources.append(_Source(id, notification, cursor, high, kind, names, some))
    return sources


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
                part = source.parts.pop(0)
                if source.kind == CHUNKS:
                    freed.append(part)
                    source.cursor = part
                else:
                    # Due from now, not from when it was sent: a broadcast's chunks would go before all that was sent meanwhile.
                    chunks.append(NewChunk(source.notification, binding, lane, 1, now, sorted(part)))
                    source.cursor = part[-1]
                    source.total += len(part)
                room -= 1
            if source.dry and not source.parts:
                over.append(source)
                left.remove(source)
    await turns.let_go(db, freed, now)
    await add_chunks(db, chunks, now)
    await _store(db, [source for source in moved if source not in over], over, now)
    return len(chunks) + len(freed)


async def _store(db: Db, moved: list[_Source], over: list[_Source], now: float) -> None:
    await db.many(
        "UPDATE expansion e SET cursor = j.cursor FROM unnest($1::bigint[], $2::bigint[]) j(id, cursor) WHERE e.id = ANY (ARRAY[j.id])",
        [(source.id, source.cursor) for source in moved],
    )
    if over:
        await db.run("DELETE FROM expansion WHERE id = ANY($1::bigint[])", [source.id for source in over])
    ledger = Ledger(db)
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
    ids = await _audience(db, source, name, binding, parts * size)
    source.parts = [ids[first : first + size] for first in range(0, len(ids), size)]
    source.dry = len(ids) < parts * size


_PACKED = "SELECT string_agg(int8send(id), '') FROM ({} LIMIT $4) page"
"""Numbers as one value, eight bytes each, most significant first: as an array they cost ten times as much to take apart."""
_ALL = (
    "(SELECT e.id FROM endpoint_{0} e WHERE e.binding = $1 AND e.state = 'active' AND e.usr <> '' AND {0} >= ($2::bigint & 15) "
    "AND e.id > CASE WHEN {0} = ($2 & 15) THEN $2 ELSE 0 END AND e.id <= $3{1} ORDER BY e.id LIMIT $4)"
)
_TOPIC = (
    "(SELECT t.endpoint AS id FROM endpoint_tag_{0} t{2} WHERE t.binding = $1 AND t.tag = $5 AND {0} >= ($2::bigint & 15) "
    "AND t.endpoint > CASE WHEN {0} = ($2 & 15) THEN $2 ELSE 0 END AND t.endpoint <= $3{1} ORDER BY t.endpoint LIMIT $4)"
)
_JOIN = " JOIN endpoint_{0} e ON e.id = t.endpoint"


async def _audience(db: Db, source: _Source, name: str, binding: int, limit: int) -> array[int]:
    """The next endpoints, part by part of the directory, in each by id: who is read together stands together there.

    The cursor is the last one of them, whose part its number tells. All parts merged by number would cost twice as much here, and
    each chunk then an access to every part when it is sent.
    """
    topic = source.kind == "topic"
    values: list[Any] = [source.names[0]] if topic else []
    asked = ""
    if source.audience is not None:
        asked, more = condition(source.audience, name, "e", first=6 if topic else 5)
        values += more
    each = (_TOPIC if topic else _ALL).format
    parts = (each(part, asked, _JOIN.format(part) if asked else "") for part in range(SHARDS))
    sql = _PACKED.format(" UNION ALL ".join(parts))
    found = await db.value(sql, binding, source.cursor, source.high, limit, *values)
    ids = array("q", found or b"")
    if sys.byteorder == "little":
        ids.byteswap()
    return ids
