"""Retry rows: divided by due time into parts that are emptied one after another, and then given back whole.

A part is for the retries of eight and a half minutes, and comes round again after more than an hour, which is the
longest back-off by default. By then it has long been empty. One TRUNCATE frees the space of its rows on disk and in its
indexes, also while an old transaction keeps vacuum from it. A row that is due later than that shares a part with
others, and only costs that one's turn.

Parts that are made and dropped by the minute would need a lock on all of the table for each, behind every reader and
before every writer; and where a part for the rest exists, PostgreSQL reads that one through each time.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

import asyncpg

from fanout.storage.postgres.db import Db
from fanout.storage.sql.ledger import hold
from fanout.storage.sql.stopping import RETRY_COLUMNS

__all__ = ["PARTS", "SCHEMA", "Emptied", "take_due"]

_log = logging.getLogger("fanout.postgres")

PARTS = 8
_WIDTH = 512
"""Seconds of due times that stand in one part."""
_PART = f"((floor(due_at / {_WIDTH}))::bigint & {PARTS - 1})"
SCHEMA = f"""
CREATE TABLE retry (
  notification bigint NOT NULL, endpoint bigint NOT NULL, due_at float8 NOT NULL,
  binding int NOT NULL, attempt int NOT NULL, lane smallint NOT NULL, holds boolean NOT NULL DEFAULT false,
  waiting text NOT NULL, reason text NOT NULL
) PARTITION BY LIST ({_PART});
""" + "".join(f"CREATE TABLE retry_{part} PARTITION OF retry FOR VALUES IN ({part});\n" for part in range(PARTS))
_WORTH = 256 * 1024
"""Bytes from which an empty part is worth the lock."""
_LONGER = 30.0
"""Seconds for which a part must have been empty: longer than any reading transaction of ours, which else would miss
rows."""


async def take_due(db: Db, binding: int, lane: int, limit: int, now: float) -> list[Any]:
    """Delete due retry rows, oldest first, and return them (`stopping.RETRY_COLUMNS`); their notifications are held
    then.

    A row of a notification that is in other hands just now is left for the next time.
    """
    page = await db.rows(
        f"SELECT {_PART} AS part, ctid, notification FROM retry WHERE binding = $1 AND lane = $2 AND due_at <= $3 "
        "ORDER BY due_at LIMIT $4",
        binding,
        lane,
        now,
        limit,
    )
    mine = set(await hold(db, {row[2] for row in page}, wait=False))
    places: dict[int, list[Any]] = defaultdict(list)
    for part, place, notification in page:
        if notification in mine:
            places[part].append(place)
    taken: list[Any] = []
    for part, there in places.items():
        # By place, not by key: the conditions are for a row that has moved or made room for another since it was seen.
        taken += await db.rows(
            f"DELETE FROM retry_{part} WHERE ctid = ANY($1::tid[]) AND notification = ANY($2::bigint[]) AND binding = $3 "
            f"AND lane = $4 AND due_at <= $5 RETURNING {RETRY_COLUMNS}",
            there,
            list(mine),
            binding,
            lane,
            now,
        )
    return taken


class Emptied:
    """Which parts have been seen empty, and since when (monotonic seconds)."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    async def look(self, db: Db, clock: float) -> list[int]:
        """The parts that are large, and have been empty for long."""
        row = await db.row(
            "SELECT "
            + ", ".join(
                f"pg_total_relation_size('retry_{part}') > {_WORTH} AND NOT EXISTS (SELECT 1 FROM retry_{part})"
                for part in range(PARTS)
            )
        )
        assert row is not None
        for part in range(PARTS):
            if row[part]:
                self._since.setdefault(part, clock)
            else:
                self._since.pop(part, None)
        return [part for part, since in self._since.items() if clock - since >= _LONGER]

    async def give_back(self, db: Db, parts: list[int]) -> int:
        """Free the disk space that these leave, unless a transaction writes there at this moment; how many were given
        back."""
        done = 0
        for part in parts:
            try:
                await db.run(f"LOCK TABLE retry_{part} IN ACCESS EXCLUSIVE MODE NOWAIT")
            except asyncpg.LockNotAvailableError:
                # The transaction is over with that: the work before in it is done another time.
                return 0
            if not await db.value(f"SELECT EXISTS (SELECT 1 FROM retry_{part})"):
                await db.run(f"TRUNCATE retry_{part}")
                done += 1
            self._since.pop(part, None)
        return done
