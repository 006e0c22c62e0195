"""Expand: due schedules are looked up, and audiences are cut into chunks a bounded number ahead."""

from __future__ import annotations

from typing import Any

from fanout.core.feed import Audience
from fanout.core.model import LANES
from fanout.storage.chunks import CHUNKS, WIDE, NewChunk, Start
from fanout.storage.lanes import OF_WORKERS
from fanout.storage.sql import turns
from fanout.storage.sql.audience import touched
from fanout.storage.sqlite.audience import look_up
from fanout.storage.sqlite.cutting import cut, store
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.feed_audience import condition, look_up_some
from fanout.storage.sqlite.ledger import Ledger, add_chunks
from fanout.storage.sqlite.session import finished, shared

__all__ = ["expand", "expandable"]

_STARTS = 1000
"""Schedules that one call begins at most."""


def expandable(db: Db, app: str, binding: str, now: float) -> bool:
    """Whether something is due to be expanded, and the binding is not paused."""
    number = db.app(app)
    return bool(
        db.value(
            f"SELECT EXISTS (SELECT 1 FROM expansion WHERE app = ?1 AND binding IN (0, ?2) AND {OF_WORKERS} AND due_at <= ?3) "
            "AND NOT EXISTS (SELECT 1 FROM control WHERE binding = ?2 AND paused)",
            number,
            db.binding(number, binding),
            now,
        )
    )


def expand(db: Db, app: str, binding: str, now: float, ahead: int) -> int:
    """Begin the schedules that are due, then let chunks go from expansions, each in turn, until `ahead` wait in the lane."""
    number = db.app(app)
    place = db.binding(number, binding)
    if db.paused(place):
        return 0
    made = _begin_schedules(db, number, now)
    for lane in range(len(LANES)):
        expansions = _due(db, number, place, lane, now)
        if not expansions:
            continue
        waiting = db.value(
            "SELECT count(*) FROM (SELECT 1 FROM chunk WHERE binding = ? AND lane = ? AND NOT done AND ready_at <= ? LIMIT ?)",
            place,
            lane,
            now,
            ahead,
        )
        room = ahead - waiting
        while room > 0 and expansions:
            round_of = expansions[:room]
            room -= len(round_of)
            for expansion in round_of:
                cut, over = _cut(db, expansion, binding, place, lane, now)
                made += cut
                if over:
                    expansions.remove(expansion)
    return made


def _begin_schedules(db: Db, app: int, now: float) -> int:
    rows = db.rows(
        "id, notification, lane, due_at, json(target)",
        f"(SELECT * FROM expansion WHERE app = ? AND binding = 0 AND {OF_WORKERS} AND due_at <= ? ORDER BY lane, due_at LIMIT ?)",
        app,
        now,
        _STARTS,
    )
    if not rows:
        return 0
    _delete(db, [row[0] for row in rows])
    starts = [Start(row[1], app, row[2], row[3], *row[4][:2], *map(Audience.load, row[4][2:])) for row in rows]
    look_up_some(db, [start for start in starts if start.kind not in WIDE and start.audience is not None], now)
    chosen = [start for start in starts if start.kind not in WIDE and start.audience is None]
    for start, found in zip(chosen, look_up(db, [(s.app, s.kind, s.names) for s in chosen]), strict=True):
        start.found = found
    for start in starts:
        if start.kind in WIDE:
            start.found = {binding: [] for binding in shared(db, touched, app, start.kind, start.names)}
    plan = cut(db, starts)
    ledger = Ledger(db)
    for start in starts:
        change = ledger.of(start.notification)
        change.total += start.total
        change.expansions += start.expansions - 1
    finished(ledger.write(now))
    return store(db, plan, now)


def _due(db: Db, app: int, binding: int, lane: int, now: float) -> list[list[Any]]:
    return db.rows(
        "id, notification, due_at, cursor, high, json(target)",
        "(SELECT * FROM expansion WHERE app = ? AND binding = ? AND lane = ? AND due_at <= ? ORDER BY due_at, id LIMIT 64)",
        app,
        binding,
        lane,
        now,
    )


def _cut(db: Db, expansion: list[Any], name: str, binding: int, lane: int, now: float) -> tuple[int, bool]:
    """One chunk from an expansion: how many were made due, and whether it is over. Moves its cursor."""
    id, notification, _, cursor, high, (kind, names, *audience) = expansion
    if kind == CHUNKS:
        chunks = shared(db, turns.held_back, notification, binding, cursor, high, 2)
        shared(db, turns.let_go, chunks[:1], now)
        expansion[3], over = (chunks or [0])[0], len(chunks) < 2
        if over:
            _delete(db, [id])
        else:
            _move(db, id, expansion[3])
        return int(expansion[3] > 0), over
    size = db.context.chunk
    asked, values = condition(Audience.load(audience[0]), name, "e") if audience else ("", [])
    if audience and kind == "topic":
        ids = db.json(
            "SELECT json_group_array(endpoint) FROM (SELECT t.endpoint FROM endpoint_tag t CROSS JOIN endpoint e ON e.id = t.endpoint "
            f"WHERE t.binding = ? AND t.tag = ? AND t.endpoint > ? AND t.endpoint <= ?{asked} ORDER BY t.endpoint LIMIT ?)",
            binding,
            names[0],
            cursor,
            high,
            *values,
            size,
        )
    elif kind == "topic":
        ids = db.json(
            "SELECT json_group_array(endpoint) FROM (SELECT endpoint FROM endpoint_tag WHERE binding = ? AND tag = ? "
            "AND endpoint > ? AND endpoint <= ? ORDER BY endpoint LIMIT ?)",
            binding,
            names[0],
            cursor,
            high,
            size,
        )
    else:
        ids = db.json(
            "SELECT json_group_array(id) FROM (SELECT id FROM endpoint e WHERE binding = ? AND state = 'active' "
            f"AND usr <> '' AND id > ? AND id <= ?{asked} ORDER BY id LIMIT ?)",
            binding,
            cursor,
            high,
            *values,
            size,
        )
    over = len(ids) < size
    ledger = Ledger(db)
    change = ledger.of(notification)
    change.total += len(ids)
    if ids:
        # Due from now, not from when it was sent: a broadcast's chunks would go before all that was sent meanwhile.
        add_chunks(db, [NewChunk(notification, binding, lane, 1, now, ids)], now)
    if over:
        _delete(db, [id])
        change.expansions -= 1
    else:
        expansion[3] = ids[-1]
        _move(db, id, ids[-1])
    finished(ledger.write(now))
    if over:
        finished(ledger.finish(now))
    return (1 if ids else 0), over


def _move(db: Db, id: int, cursor: int) -> None:
    db.run("UPDATE expansion SET cursor = ? WHERE id = ?", cursor, id)


def _delete(db: Db, ids: list[int]) -> None:
    db.run("DELETE FROM expansion WHERE id IN (SELECT value FROM json_each(?))", dumps(ids))
