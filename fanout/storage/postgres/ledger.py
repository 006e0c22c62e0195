"""The bookkeeping that every end of a delivery goes through: chunks' maps, tallies, sums, and the end of a
notification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fanout.core.records import Settled
from fanout.core.statemap import Codes
from fanout.storage.book import ending
from fanout.storage.chunks import COLUMNS, NewChunk
from fanout.storage.packing import pack
from fanout.storage.postgres.db import Db
from fanout.storage.sql.hot import Ledger as Shared
from fanout.storage.standing import finals

__all__ = ["ADD_LOAD", "STEP", "Ledger", "add_chunks", "fill", "finish_ready"]

STEP = "(SELECT nextval('step'))"
"""The next number of a decision, a new chunk or a lease, one for all rows of a statement."""

ADD_LOAD = (
    "INSERT INTO load AS l (app, shard, deliveries, bytes) SELECT app, pg_backend_pid() & 15, sum(deliveries), sum(bytes) FROM ({}) s "
    "GROUP BY app HAVING sum(deliveries) <> 0 OR sum(bytes) <> 0 ORDER BY app ON CONFLICT (app, shard) DO UPDATE "
    "SET deliveries = l.deliveries + excluded.deliveries, bytes = l.bytes + excluded.bytes"
)
"""Adds the columns `deliveries` and `bytes` to the load of the app in `app`; no two backends write to the same row, or
nearly none."""


async def add_chunks(db: Db, chunks: Sequence[NewChunk], now: float) -> list[int]:
    """Store new chunks, without a lease; their numbers, which ascend."""
    if not chunks:
        return []
    rows = [(*chunk.row(now), pack(chunk.ids)) for chunk in chunks]
    found = await db.rows(_ADD_CHUNKS, *zip(*rows, strict=True), now)
    return sorted(row[0] for row in found)


_ADD_CHUNKS = f"""
WITH j AS MATERIALIZED (
  SELECT nextval('chunk_id_seq') AS id, u.* FROM unnest($1::bigint[], $2::int[], $3::smallint[], $4::int[], $5::float8[], $6::int[],
    $7::bigint[], $8::bigint[], $9::bytea[], $10::int[], $11::int[], $12::float8[], $13::boolean[], $14::bytea[])
    u({COLUMNS}, ids)
), c AS (
  INSERT INTO chunk (id, {COLUMNS}, created_at, created_after) SELECT id, {COLUMNS}, $15::float8, {STEP} FROM j
)
INSERT INTO audience (chunk, ids) SELECT id, ids FROM j RETURNING chunk
"""


class Ledger(Shared):
    """Collects the deliveries that a transaction ends, and writes them in a few statements. The notifications are held
    (`hold`)."""

    def __init__(self, db: Db, codes: dict[int, Codes] | None = None) -> None:
        super().__init__(codes)
        self._db = db
        self._over: list[int] = []

    async def write(self, now: float) -> None:
        """Store it all. A notification that is finished with that is for `finish` to end."""
        sums = self.sums()
        if self.maps or any(change.ended for change in self.changes.values()):
            columns = (*_columns(self._rows(), 8), *_columns(self.tallies(), 5), *_columns(sums, 5))
            self._over += [row[0] for row in await self._db.rows(_WRITE, *columns, now)]
        elif sums:
            self._over += [row[0] for row in await self._db.rows(_ADD_SUMS, *_columns(sums, 5))]

    def _rows(self) -> list[tuple[Any, ...]]:
        given: Mapping[int, tuple[float, str]] = {id: (due_at, waiting) for id, due_at, waiting in self.releases}
        suspected: Mapping[int, tuple[int, int]] = {id: (crashes, part) for id, crashes, part in self.parts}
        nothing = (None, None)
        return [
            (id, *changed, *given.get(id, nothing), *suspected.get(id, nothing)) for id, changed in self.maps.items()
        ]

    async def finish(self, now: float) -> dict[int, Settled]:
        """`finish_ready` for every notification that `write` left without a rest."""
        return await finish_ready(self._db, self._over, now)


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * count


_SUMS = f"""
s AS (
  UPDATE notification n SET settled = n.settled + j.settled, total = n.total + j.total, attempts = n.attempts + j.attempts,
    expansions = n.expansions + j.expansions
  FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::int[]) j(id, settled, total, attempts, expansions)
  WHERE n.id = ANY (ARRAY[j.id]) RETURNING n.id, n.app, j.total - j.settled + j.expansions AS deliveries, 0 AS bytes,
    n.finished_at IS NULL AND n.expansions = 0 AND n.settled = n.total AS over
), l AS ({ADD_LOAD.format("SELECT app, deliveries, bytes FROM s")})
SELECT id FROM s WHERE over
"""
_ADD_SUMS = f"WITH {_SUMS % ('$1', '$2', '$3', '$4', '$5')}"
# Everything in one statement: each of its own would be another turn of a busy loop.
_WRITE = f"""
WITH m AS (
  UPDATE chunk c SET states = j.states, open = j.open, settled_at = CASE WHEN j.ended THEN $19 ELSE c.settled_at END,
    owner = CASE WHEN j.open > 0 AND j.due_at IS NULL THEN c.owner END, ready_at = coalesce(j.due_at, c.ready_at),
    since = CASE WHEN j.due_at IS NULL THEN c.since ELSE $19 END,
    waiting = coalesce(j.waiting, c.waiting), crashes = coalesce(j.crashes, c.crashes), part = coalesce(j.part, c.part)
  FROM unnest($1::bigint[], $2::bytea[], $3::int[], $4::boolean[], $5::float8[], $6::text[], $7::int[], $8::int[])
    j(id, states, open, ended, due_at, waiting, crashes, part) WHERE c.id = ANY (ARRAY[j.id])
), e AS (
  INSERT INTO tally AS t (notification, code, state, reason, n)
  SELECT * FROM unnest($9::bigint[], $10::smallint[], $11::text[], $12::text[], $13::bigint[])
  ON CONFLICT (notification, code) DO UPDATE SET n = t.n + excluded.n
), {_SUMS % ("$14", "$15", "$16", "$17", "$18")}
"""


async def finish_ready(db: Db, notifications: Sequence[int], now: float) -> dict[int, Settled]:
    """Of these, which are held, those of which nothing is left become finished, with an event each (see `sql.hot`)."""
    if not notifications:
        return {}
    rows: list[Any] = [
        (*row[:5], list(zip(*row[5:8], strict=True)), *row[8:])
        for row in await db.rows(_FINISH, list(notifications), now)
    ]
    await db.log(now, [(row[1], "notification.finished", ending(*row[2:6])) for row in rows])
    return finals(rows, now)


_FINISH = f"""
WITH f AS (
  UPDATE notification SET finished_at = $2, paused = false
  WHERE id = ANY($1::bigint[]) AND num_nulls(finished_at) = 1 AND expansions = 0 AND settled = total
  RETURNING id, app, uuid, total, stopped, attempts, accepted_at, due_at, expires_at, unexpanded, octet_length(content) AS size
), l AS ({ADD_LOAD.format("SELECT app, 0 AS deliveries, -size AS bytes FROM f")})
SELECT id, app, uuid, total, stopped, coalesce(t.states, '{{}}') AS states, coalesce(t.reasons, '{{}}') AS reasons,
  coalesce(t.counts, '{{}}') AS counts, (SELECT name FROM app WHERE app.id = f.app) AS name, attempts, unexpanded, accepted_at, due_at, expires_at
FROM f LEFT JOIN LATERAL (
  SELECT array_agg(state ORDER BY code) AS states, array_agg(reason ORDER BY code) AS reasons, array_agg(n ORDER BY code) AS counts
  FROM tally WHERE notification = f.id
) t ON true
ORDER BY id
"""


async def fill(db: Db, rows: Sequence[tuple[int, int, bytes]]) -> None:
    """Give scheduled notifications, which are held, their new content: (number, bytes of content so far, new
    content)."""
    await db.many(_FILL, rows)


_FILL = f"""
WITH n AS (
  UPDATE notification n SET content = j.content FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) j (id, size, content)
  WHERE n.id = ANY (ARRAY[j.id]) RETURNING n.app, 0 AS deliveries, octet_length(j.content) - j.size AS bytes
), l AS ({ADD_LOAD.format("SELECT app, deliveries, bytes FROM n")})
SELECT count(*) FROM n
"""
