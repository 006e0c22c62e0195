"""The statements of a settlement: which chunks are held, and new retry rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.statemap import Codes
from fanout.storage.postgres.db import Db
from fanout.storage.settlements import Held
from fanout.storage.sql.ledger import codes_of

__all__ = ["add_retries", "held"]

_COPY = 100
"""From so many retry rows on they are copied: COPY needs two turns more, and a tenth of the time for each row."""
_RETRY = ("notification", "endpoint", "binding", "lane", "due_at", "attempt", "waiting", "reason", "holds", "since")


async def held(db: Db, chunks: Sequence[int]) -> tuple[dict[int, Held], dict[int, Codes]]:
    """The chunks that are held, locked with their notifications, and the latter's lists of (state, reason)."""
    rows = await db.rows(_READ, chunks)
    found = {row[0]: Held(*row[1:]) for row in map(tuple, rows)}
    # In a statement of its own, which sees what was committed while the first one waited for its locks.
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
