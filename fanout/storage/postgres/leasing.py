"""Lease and extend, and the chunks that could be leased.

A lease waits for no row: chunks that another transaction has locked are left out. It shares an advisory lock of its
binding with other leases, which the pause of the binding takes for itself: so that nothing is leased behind its back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fanout.core.model import LANES
from fanout.core.records import Chunk
from fanout.core.statemap import DOUBTFUL
from fanout.storage.chunks import NewChunk
from fanout.storage.leases import complete, endpoints_of, few, soonest
from fanout.storage.packing import unpack
from fanout.storage.postgres.db import BINDING_LOCK, Db
from fanout.storage.postgres.floors import BEGINNING
from fanout.storage.postgres.ledger import STEP, add_chunks
from fanout.storage.postgres.partitions import take_due
from fanout.storage.postgres.resolving import resolve
from fanout.storage.sql.stopping import gather
from fanout.storage.sql.suspicion import LONELY, Inspection
from fanout.storage.sql.watching import notifications

__all__ = ["extend", "lease", "waiting"]

_PAGES = (4, 16, 128, 1024)
"""Chunks looked at in one statement, at first and from then on: those that turn out not to be needed are locked all the
same."""

_RUNNING = "NOT EXISTS (SELECT 1 FROM control WHERE binding = $1 AND paused)"


_DUE = "ready_at <= greatest($3::float8, $4::float8) AND ready_at <= CASE WHEN owner IS NULL THEN $3 ELSE $4 END"
"""That a chunk is due ($3, the callers' time), or its lease has run out ($4, the database's)."""


async def lease(
    db: Db,
    worker: str,
    app: str,
    binding: str,
    lane: int,
    limit: int,
    now: float,
    until: float,
) -> list[Chunk]:
    """Due chunks, until `limit` deliveries are reached. The rest of stopped or doubtful ones is ended on the way."""
    number = await db.binding(await db.app(app), binding)
    clock, retries = (
        await db.rows(
            "SELECT extract(epoch FROM clock_timestamp())::float8, "
            "EXISTS (SELECT 1 FROM backlog WHERE binding = $1), pg_advisory_xact_lock_shared($2, $1)::text",
            number,
            BINDING_LOCK,
        )
    )[0][:2]
    db.measured(clock)
    db.silent = True
    if retries and await db.value(f"SELECT {_RUNNING}", number):
        taken = await take_due(db, number, lane, limit, now)
        if taken:
            db.silent = False
            await add_chunks(db, await gather(db, taken), now)
    rows: list[Any] = []
    if db.again:
        rows = await db.rows(_MINE, number, lane, worker, now, until + db.skew)
        db.silent = db.silent and not rows
    if not rows:
        rows = await _claim(db, number, lane, limit, now, worker, until + db.skew)
    chunks = [
        Chunk(id, uuid, app, binding, lane, attempt, epoch, until, unpack(ids), states, part)
        for id, uuid, attempt, epoch, ids, states, part in rows
    ]
    if few(chunks):
        stored = await notifications(db, list({chunk.notification for chunk in chunks}))
        complete(chunks, await resolve(db, endpoints_of(chunks), now), stored)
    return chunks


_COLUMNS = "c.id, n.uuid, c.attempt, c.epoch, a.ids, c.states, c.part"
_OF = """
CROSS JOIN LATERAL (SELECT ids FROM audience WHERE chunk = c.id OFFSET 0) a
CROSS JOIN LATERAL (SELECT uuid FROM notification WHERE id = c.notification OFFSET 0) n
"""
_NEXT = "greatest(c.epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
"""A lease is committed without waiting for the disk. When the server fails it may never have been, and its holder does
not know: the next lease of that chunk must not have the same number, which would let both settle. So the time is in it,
in milliseconds."""
_TAKE = (
    f"owner = $5, worker = $5, epoch = {_NEXT}, leased_at = $3, leased_after = {STEP}, ready_at = $6, waiting = 'ready'"
)
_CLAIM = f"""
WITH page AS MATERIALIZED (
  SELECT c.id, c.ready_at, c.open, c.owner IS NOT NULL OR position('\\x{DOUBTFUL:02x}'::bytea IN c.states) > 0
    OR (SELECT stopped FROM notification WHERE id = c.notification) <> '' OR {LONELY} AS bad
  FROM chunk c
  WHERE c.binding = $1 AND c.lane = $2 AND NOT c.done AND {_DUE} AND (c.ready_at, c.id) > ($7, $8) AND {_RUNNING}
  ORDER BY c.ready_at, c.id LIMIT %d FOR NO KEY UPDATE OF c SKIP LOCKED
), chosen AS (
  SELECT *, sum(open) OVER w - open AS before, bool_or(bad) OVER w AS spoiled FROM page WINDOW w AS (ORDER BY ready_at, id)
), c AS (
  UPDATE chunk c SET {_TAKE} FROM chosen p WHERE c.id = ANY (ARRAY[p.id]) AND NOT p.spoiled AND p.before < $9
  RETURNING c.id, c.notification, c.attempt, c.epoch, c.states, c.part, p.ready_at AS due, p.open AS still
)
SELECT {_COLUMNS}, c.due, c.still, false AS bad, true AS taken, true AS wanted FROM c {_OF}
UNION ALL SELECT id, NULL, NULL, NULL, NULL, NULL, NULL, ready_at, open, bad, false, before < $9 FROM chosen WHERE spoiled OR before >= $9
ORDER BY due, id
"""
_TAKE_THESE = f"""
WITH c AS (
  UPDATE chunk c SET {_TAKE.replace("$5", "$2").replace("$6", "$4")} WHERE id = ANY($1::bigint[])
  RETURNING c.id, c.notification, c.attempt, c.epoch, c.states, c.part
)
SELECT {_COLUMNS} FROM c {_OF}
"""
_MINE = f"""
WITH c AS (
  UPDATE chunk c SET ready_at = $5 WHERE c.binding = $1 AND c.lane = $2 AND NOT c.done AND c.owner = $3 AND c.leased_at = $4
  RETURNING c.id, c.notification, c.attempt, c.epoch, c.states, c.part
)
SELECT {_COLUMNS} FROM c {_OF} ORDER BY c.id
"""
"""The chunks that an earlier run of the same lease took, whose answer was lost: in this worker's hands from now on."""


_PASSED = "SELECT pg_stat_get_xact_tuples_returned('chunk_ready'::regclass)"
"""Entries that this connection has read of the index; PostgreSQL forgets those of earlier transactions after a second,
and not at once."""


async def _claim(
    db: Db, number: int, lane: int, limit: int, now: float, worker: str, until: float
) -> list[Sequence[Any]]:
    """Take due chunks, page by page. A page of chunks that are in order is one statement."""
    taken: list[Sequence[Any]] = []
    moved: list[NewChunk] = []
    left = limit
    clock = time.monotonic()
    floor = db.floors.floor(number, lane, min(now, now + db.skew), clock)
    after: tuple[float, int] = (floor, 0)
    for page in range(10**9):
        size = min(_PAGES[min(page, len(_PAGES) - 1)], limit)
        counts = page == 0 and floor == BEGINNING and db.floors.counts(number, lane, clock)
        before = await db.value(_PASSED) if counts else 0
        rows = await db.rows(_CLAIM % size, number, lane, now, now + db.skew, worker, until, *after, left)
        if counts:
            db.floors.counted(number, lane, clock, await db.value(_PASSED) - before - len(rows))
        rest = []
        db.silent = db.silent and not rows
        for *columns, ready_at, still_open, bad, mine, wanted in rows:
            after = (ready_at, columns[0])
            if mine:
                taken.append(columns)
                left -= still_open
            elif wanted:
                rest.append((columns[0], still_open, bad))
        if rest:
            more, judged = await _inspect(db, rest, left, now)
            taken += await _take_these(db, [id for id, _ in more], worker, now, until)
            left -= sum(count for _, count in more)
            moved += judged
        if left <= 0 or len(rows) < size:
            break
    # A delivery that was under way at a crash is for the next call: sent by the same worker, it could kill the rest as
    # well.
    await add_chunks(db, moved, now)
    return taken


async def _inspect(
    db: Db, rest: Sequence[tuple[int, int, bool]], left: int, now: float
) -> tuple[list[tuple[int, int]], list[NewChunk]]:
    """From the first chunk on that is not in order: which are to be leased, with their open deliveries; and the
    deliveries that move elsewhere."""
    inspection = await Inspection.of(db, [id for id, _, bad in rest if bad], now)
    chosen: list[tuple[int, int]] = []
    for id, count, bad in rest:
        if left <= 0:
            break
        if bad:
            if id not in inspection.able:
                continue
            count = inspection.judge(id)
        if count:
            chosen.append((id, count))
            left -= count
    await inspection.write()
    return chosen, inspection.moved


async def _take_these(db: Db, ids: list[int], worker: str, now: float, until: float) -> list[Sequence[Any]]:
    if not ids:
        return []
    found = {row[0]: tuple(row) for row in await db.rows(_TAKE_THESE, ids, worker, now, until)}
    return [found[id] for id in ids]


# -- the next due time

_CHUNK = (
    "(SELECT ready_at - CASE WHEN owner IS NULL THEN 0 ELSE $3::float8 END FROM chunk WHERE binding = $1 AND lane = {0} "
    "AND NOT done AND ready_at >= $4 ORDER BY ready_at LIMIT 1)"
)
_RETRIES = ", ".join(
    f"(SELECT min(due_at) FROM retry WHERE binding = $1 AND lane = {lane})" for lane in range(len(LANES))
)
_EXPANSION = (
    "(SELECT min(due_at) FROM expansion WHERE app = $2 AND binding = $1 AND lane = {0}), "
    "(SELECT min(due_at) FROM expansion WHERE app = $2 AND binding = 0 AND lane = {0})"
)
_TIMES = ", ".join(source.format(lane) for lane in range(len(LANES)) for source in (_CHUNK, _EXPANSION))


_WAITING = f"SELECT {_TIMES}, EXISTS (SELECT 1 FROM backlog WHERE binding = $1) WHERE {_RUNNING}"


async def waiting(db: Db, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
    """Whether each lane has work now, and the time of the next work if that is later. Changes nothing: the lease looks
    again."""
    db.silent = True
    number = await db.app(app)
    lanes = len(LANES)
    place = await db.binding(number, binding)
    clock = time.monotonic()
    floors = [db.floors.floor(place, lane, min(now, now + db.skew), clock) for lane in range(lanes)]
    times = await db.row(_WAITING, place, number, db.skew, max(floors))
    if times is not None and max(floors) != BEGINNING and not any(at is not None and at <= now for at in times[:-1]):
        # Not in haste, before it is said that there is nothing to do.
        times = await db.row(_WAITING, place, number, db.skew, BEGINNING)
    if times is None:
        return [False] * lanes, None
    retries = await db.row(f"SELECT {_RETRIES}", place) if times[-1] else [None] * lanes
    return soonest(((*times[3 * lane : 3 * lane + 3], retries[lane]) for lane in range(lanes)), now)


_EXTEND = """
WITH held AS MATERIALIZED (
  SELECT c.id, j.until FROM unnest($1::bigint[], $2::bigint[], $3::float8[]) j(id, epoch, until) CROSS JOIN LATERAL (
    SELECT id FROM chunk WHERE id = j.id AND epoch = j.epoch AND owner IS NOT NULL OFFSET 0 FOR NO KEY UPDATE
  ) c
) UPDATE chunk c SET ready_at = held.until FROM held WHERE c.id = ANY (ARRAY[held.id]) RETURNING c.id
"""


async def extend(db: Db, leases: Sequence[tuple[int, int, float]]) -> list[int]:
    """Extend the leases still held under that epoch; the rest is returned."""
    db.measured(await db.value("SELECT extract(epoch FROM clock_timestamp())::float8"))
    chunks, epochs, untils = zip(*sorted(leases), strict=True) if leases else ((), (), ())
    rows = await db.rows(_EXTEND, chunks, epochs, [until + db.skew for until in untils])
    kept = {row[0] for row in rows}
    db.silent = not kept
    return [chunk for chunk, _, _ in leases if chunk not in kept]
