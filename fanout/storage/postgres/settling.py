"""Settle: chunks that are their whole notification in one statement, which ends both; the rest as on every database.
And the statements of that.

A row that ends with its notification is locked without waiting, after all locks that may wait. So no two settlements
wait for each other. Where another transaction holds a lock just then, the operation runs anew, the long way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.statemap import Codes
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import ADD_LOAD
from fanout.storage.settlements import Held
from fanout.storage.sql.db import Again
from fanout.storage.sql.ledger import codes_of
from fanout.storage.sql.settling import FEW

__all__ = ["add_retries", "end", "held"]

_COPY = 100
"""From so many retry rows on they are copied: COPY needs two turns more, and a tenth of the time for each row."""
_RETRY = ("notification", "endpoint", "binding", "lane", "due_at", "attempt", "waiting", "reason", "holds", "since")


async def end(db: Db, rows: Sequence[Sequence[Any]], now: float) -> list[Sequence[Any]]:
    """See `Hot`. Raises `Again` where others hold one."""
    found = await db.rows(_END, *zip(*rows, strict=True), now)
    if len(found) < len(rows):
        raise Again
    return [rest for ended, *rest in found if ended]


_END = f"""
WITH h AS MATERIALIZED (
  SELECT j.*, n.*, n.settled = 0 AND n.total = j.count AND n.expansions = 0 AND n.stopped = '' AND n.finished_at IS NULL
    AND c.epoch = j.epoch AND c.owner IS NOT NULL AND c.open = j.count AND c.states = substr('\\x{"00" * FEW}'::bytea, 1, j.count) AS ended
  FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::int[], $5::bigint[], $6::text[], $7::text[], $8::bytea[], $9::text[])
    j(i, chunk, epoch, count, tries, state, reason, states, said)
  CROSS JOIN LATERAL (SELECT notification FROM chunk WHERE id = j.chunk OFFSET 0) o
  CROSS JOIN LATERAL (
    SELECT id, app, uuid, total, settled, expansions, stopped, finished_at, attempts, accepted_at, due_at, expires_at,
      octet_length(content) AS size FROM notification WHERE id = o.notification OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED
  ) n
  CROSS JOIN LATERAL (
    SELECT epoch, owner, open, states FROM chunk WHERE id = j.chunk AND n.id > 0 OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED
  ) c
), u AS (
  UPDATE notification n SET settled = n.total, attempts = n.attempts + h.tries, finished_at = $10, paused = false
  FROM h WHERE n.id = ANY (ARRAY[h.id]) AND h.ended
), c AS (
  UPDATE chunk c SET states = h.states, open = 0, owner = NULL, settled_at = $10 FROM h WHERE c.id = ANY (ARRAY[h.chunk]) AND h.ended
), t AS (
  INSERT INTO tally (notification, code, state, reason, n) SELECT id, 1, state, reason, count FROM h WHERE ended
), e AS (
  INSERT INTO event (at, app, kind, data)
  SELECT $10, app, 'notification.finished', '{{"notification":' || to_json(uuid) || said FROM h WHERE ended
), l AS ({ADD_LOAD.format("SELECT app, -total AS deliveries, -size AS bytes FROM h WHERE ended")})
SELECT ended, i, uuid, (SELECT name FROM app WHERE id = h.app) AS name, attempts + tries, accepted_at, due_at, expires_at FROM h
"""


async def held(db: Db, chunks: Sequence[int]) -> tuple[dict[int, Held], dict[int, Codes]]:
    """The chunks that are held, locked with their notifications, and the latter's lists of (state, reason)."""
    rows = await db.rows(_READ, chunks)
    found = {row[0]: Held(*row[1:]) for row in map(tuple, rows)}
    # In a statement of its own, which sees the commits made while the first one waited for its locks.
    return found, await codes_of(db, {each.notification for each in found.values()})


_READ = """
WITH n AS MATERIALIZED (
  SELECT id, stopped FROM notification WHERE id = ANY(ARRAY(SELECT notification FROM chunk WHERE id = ANY($1::bigint[])))
  ORDER BY id FOR NO KEY UPDATE
), s AS MATERIALIZED (
  SELECT array_agg(id) FILTER (WHERE stopped <> '') AS ids, array_agg(stopped) FILTER (WHERE stopped <> '') AS words FROM n
)
SELECT c.id, c.epoch, c.notification, coalesce(s.words[array_position(s.ids, c.notification)], ''), c.binding, c.lane, c.owner,
  c.leased_at, c.leased_after, c.states
FROM s CROSS JOIN LATERAL (
  SELECT * FROM chunk WHERE id = ANY($1::bigint[]) AND owner IS NOT NULL ORDER BY id OFFSET 0 FOR NO KEY UPDATE
) c
"""


async def add_retries(db: Db, rows: Sequence[Sequence[Any]]) -> None:
    """Store these retry rows."""
    if len(rows) >= _COPY:
        await db.copy("retry", _RETRY, rows)
        return
    await db.many(
        f"INSERT INTO retry ({', '.join(_RETRY)}) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::smallint[], "
        "$5::float8[], $6::int[], $7::text[], $8::text[], $9::boolean[], $10::float8[])",
        rows,
    )
