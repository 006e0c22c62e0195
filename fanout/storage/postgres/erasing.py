"""The erasure of a user in tables of PostgreSQL's own: see `storage.sql.erasing`. Dead rows are the business of
PostgreSQL's vacuum."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.storage.erasing import divided
from fanout.storage.postgres import inbox
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import ADD_LOAD

__all__ = ["blank", "forget_entered", "forget_in_log"]


async def blank(db: Db, notifications: Sequence[int], content: bytes) -> None:
    """Replace the texts of these notifications by this content. `load` counts an unfinished one until it ends: so it
    counts the new size from now on."""
    await db.run(_EMPTY, list(notifications), content)


_EMPTY = f"""
WITH o AS (
  SELECT id, app, finished_at, octet_length(content) AS size FROM notification WHERE id = ANY($1::bigint[])
), n AS (
  UPDATE notification SET content = $2, collapse_key = NULL, target_key = NULL, aim = NULL, names = NULL WHERE id = ANY($1::bigint[])
)
{ADD_LOAD.format("SELECT app, 0 AS deliveries, octet_length($2::bytea) - size AS bytes FROM o WHERE finished_at IS NULL")}
"""


async def forget_in_log(db: Db, app: int, user: str) -> None:
    """Lines about the user name neither the user nor the user's devices."""
    await db.run(
        'UPDATE event SET data = (data::jsonb || \'{"user": ""}\' || CASE WHEN data::jsonb ? \'device\' THEN \'{"device": ""}\'::jsonb '
        "ELSE '{}'::jsonb END)::text WHERE app = $1 AND kind <> 'notification.finished' AND data::jsonb->>'user' = $2",
        app,
        user,
    )


async def forget_entered(db: Db, app: str, user: str, devices: set[int], now: float) -> None:
    """The rows that no worker has taken yet: the user's alone goes, and a list loses the name."""
    rows = await db.rows(
        "SELECT uuid, (envelope::jsonb->'target')::text AS target FROM inbox WHERE app = $1 ORDER BY uuid FOR UPDATE",
        app,
    )
    mine, changed = divided(((uuid, uuid, target) for uuid, target in rows), user, devices)
    for uuid in sorted(mine):
        await inbox.cancel(db, app, uuid, now)
    for uuid, rest in changed:
        await db.run(
            "UPDATE inbox SET envelope = jsonb_set(envelope::jsonb, '{target}', $2::jsonb)::text WHERE uuid = $1",
            uuid,
            rest,
        )
