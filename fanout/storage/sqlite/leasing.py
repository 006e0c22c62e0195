"""Lease and extend, and the chunks that could be leased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.model import LANES
from fanout.core.records import Chunk
from fanout.core.statemap import DOUBTFUL
from fanout.storage.chunks import NewChunk
from fanout.storage.leases import complete, endpoints_of, few, soonest
from fanout.storage.sql.stopping import RETRY_COLUMNS, gather
from fanout.storage.sql.suspicion import LONELY, Inspection
from fanout.storage.sql.watching import notifications
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.ledger import LAST_DECISION, add_chunks
from fanout.storage.sqlite.resolving import resolve
from fanout.storage.sqlite.session import Session, finished, shared

__all__ = ["extend", "leasable", "lease", "waiting"]

_PAGES = (16, 128, 1024)
"""Chunks looked at in one statement, first, then, and from then on."""


def leasable(db: Db, app: str, binding: str, lane: int, now: float) -> bool:
    """Whether there is a chunk or a retry row that is due, on a binding that is not paused."""
    binding_number = db.binding(db.app(app), binding)
    return bool(
        db.value(
            "SELECT (EXISTS (SELECT 1 FROM chunk WHERE binding = ?1 AND lane = ?2 AND NOT done AND ready_at <= ?3) "
            "OR EXISTS (SELECT 1 FROM retry WHERE binding = ?1 AND lane = ?2 AND due_at <= ?3)) "
            "AND NOT EXISTS (SELECT 1 FROM control WHERE binding = ?1 AND paused)",
            binding_number,
            lane,
            now,
        )
    )


def lease(
    db: Db, worker: str, app: str, binding: str, lane: int, limit: int, now: float, until: float, known: set[str]
) -> list[Chunk]:
    """Due chunks, until `limit` deliveries are reached. The rest of stopped or doubtful ones is ended on the way.

    The notifications of few deliveries come with them, but for those that are `known`.
    """
    binding_number = db.binding(db.app(app), binding)
    if db.paused(binding_number):
        return []
    _gather(db, binding_number, lane, limit, now)
    chosen: list[int] = []
    moved: list[NewChunk] = []
    taken = 0
    after: tuple[float, int] = (-1e300, 0)
    page = 0
    while taken < limit:
        size = min(_PAGES[min(page, len(_PAGES) - 1)], limit)
        page += 1
        rows = _ready(db, binding_number, lane, now, after, size)
        spoiled = [row[0] for row in rows if row[3]]
        inspection = finished(Inspection.of(Session(db), spoiled, now)) if spoiled else None
        for id, ready_at, count, bad in rows:
            if taken >= limit:
                break
            after = (ready_at, id)
            if bad and inspection is not None:
                count = inspection.judge(id)
            if count:
                chosen.append(id)
                taken += count
        if inspection is not None:
            finished(inspection.write())
            moved += inspection.moved
        if len(rows) < size:
            break
    # A delivery that was under way at a crash is for the next call: sent by the same worker, it could kill the rest as
    # well.
    add_chunks(db, moved, now)
    if not chosen:
        return []
    ids = dumps(chosen)
    db.run(
        "UPDATE chunk SET owner = ?1, worker = ?1, epoch = epoch + 1, leased_at = ?2, "
        f"leased_after = {LAST_DECISION}, ready_at = ?3, waiting = 'ready' "
        "WHERE id IN (SELECT value FROM json_each(?4))",
        worker,
        now,
        until,
        ids,
    )
    rows = db.rows(
        "c.id, n.uuid, c.attempt, c.epoch, hex(a.ids), hex(c.states), c.part",
        "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN audience a ON a.chunk = c.id "
        "CROSS JOIN notification n ON n.id = c.notification",
        ids,
    )
    chunks = [
        Chunk(id, uuid, app, binding, lane, attempt, epoch, until, unpack(packed), bytes.fromhex(states), part)
        for id, uuid, attempt, epoch, packed, states, part in rows
    ]
    if few(chunks):
        unknown = [*{chunk.notification for chunk in chunks} - known]
        stored = shared(db, notifications, unknown) if unknown else {}
        complete(chunks, resolve(db, endpoints_of(chunks), now), stored)
    return chunks


def _gather(db: Db, binding: int, lane: int, limit: int, now: float) -> None:
    """Due retry rows become chunks."""
    rows = db.rows(
        RETRY_COLUMNS,
        "(SELECT * FROM retry WHERE binding = ? AND lane = ? AND due_at <= ? ORDER BY due_at LIMIT ?)",
        binding,
        lane,
        now,
        limit,
    )
    db.many(
        "DELETE FROM retry WHERE (notification, endpoint) IN (SELECT value->>0, value->>1 FROM json_each(?))",
        ([row[0], row[2]] for row in rows),
    )
    add_chunks(db, shared(db, gather, rows), now)


def _ready(db: Db, binding: int, lane: int, now: float, after: tuple[float, int], size: int) -> list[list[Any]]:
    """A page of due chunks: id, ready at, open, and whether it is to be inspected before it is leased."""
    return db.rows(
        f"c.id, c.ready_at, c.open, c.owner IS NOT NULL OR n.stopped <> '' OR instr(c.states, x'{DOUBTFUL:02X}') > 0 OR {LONELY}",
        "(SELECT * FROM chunk WHERE binding = ? AND lane = ? AND NOT done AND ready_at <= ? AND (ready_at, id) > (?, ?) "
        "ORDER BY ready_at, id LIMIT ?) c CROSS JOIN notification n ON n.id = c.notification",
        binding,
        lane,
        now,
        *after,
        size,
    )


_FIRST = "(SELECT min({0}) FROM {1} WHERE binding = ?1 AND lane = {2}{3})"
_TIMES = ", ".join(
    _FIRST.format(*source)
    for lane in range(len(LANES))
    for source in (("ready_at", "chunk", lane, " AND NOT done"), ("due_at", "retry", lane, ""))
)
_EXPANSIONS = ", ".join(
    f"(SELECT min(due_at) FROM expansion WHERE app = ?2 AND binding = {binding} AND lane = {lane})"
    for lane in range(len(LANES))
    for binding in ("?1", "0")
)
_OPEN = "NOT EXISTS (SELECT 1 FROM control WHERE binding = ?1 AND paused)"


def waiting(db: Db, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
    """For each lane whether there is work now; and when there will be, where that is later."""
    number = db.app(app)
    lanes = len(LANES)
    times = db.json(f"SELECT json_array({_TIMES}, {_EXPANSIONS}) WHERE {_OPEN}", db.binding(number, binding), number)
    if times is None:
        return [False] * lanes, None
    queued, unexpanded = times[: 2 * lanes], times[2 * lanes :]
    return soonest((queued[2 * i : 2 * i + 2] + unexpanded[2 * i : 2 * i + 2] for i in range(lanes)), now)


def extend(db: Db, leases: Sequence[tuple[int, int, float]]) -> list[int]:
    """Extend the leases still held under that epoch; the rest is returned."""
    leased = db.json(
        "SELECT json_group_array(json_array(c.id, j.value->>2)) FROM json_each(?) j CROSS JOIN chunk c ON c.id = j.value->>0 "
        "WHERE c.epoch = j.value->>1 AND c.owner IS NOT NULL",
        dumps(list(leases)),
    )
    if leased:
        db.many("UPDATE chunk SET ready_at = j.value->>1 FROM json_each(?) j WHERE chunk.id = j.value->>0", leased)
    kept = {chunk for chunk, _ in leased}
    return [chunk for chunk, _, _ in leases if chunk not in kept]
