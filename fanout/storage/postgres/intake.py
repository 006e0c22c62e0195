"""The statement that stores notifications, and their addition to the load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import ADD_LOAD

__all__ = ["insert"]


async def insert(db: Db, rows: Sequence[Sequence[Any]]) -> list[int]:
    """Store these notifications (see `sql.hot`); their numbers."""
    return sorted(row[0] for row in await db.rows(_INSERT, *zip(*rows, strict=True)))


_INSERT = f"""
WITH n AS (
  INSERT INTO notification (uuid, app, lane, repeat, accepted_at, due_at, expires_at, collapse_key, target_key, content, aim, names, total,
    expansions)
  SELECT * FROM unnest($1::text[], $2::int[], $3::smallint[], $4::text[], $5::float8[], $6::float8[], $7::float8[], $8::text[],
    $9::bytea[], $10::bytea[], $11::text[], $12::text[], $13::bigint[], $14::int[])
  RETURNING id, app, total + expansions AS deliveries, octet_length(content) AS bytes
), l AS ({ADD_LOAD.format("SELECT app, deliveries, bytes FROM n")})
SELECT id FROM n
"""
