"""The treatment of a due chunk before it is leased again: after a stop, after doubt, and after the loss of its
worker."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Self

from fanout.storage.chunks import NewChunk
from fanout.storage.sql.db import Db, column
from fanout.storage.sql.decisions import Decisions
from fanout.storage.sql.hot import Ledger
from fanout.storage.sql.ledger import audiences_of, codes_of, hold
from fanout.storage.suspects import LOST, Due, Suspects

__all__ = ["LONELY", "Inspection"]

_log = logging.getLogger("fanout.storage")
LONELY = "NOT EXISTS (SELECT 1 FROM audience WHERE chunk = c.id)"
"""The condition that a chunk `c` has lost its endpoints: by hand, or with a damaged table."""


class Inspection:
    """Judges chunks one by one, and writes all verdicts in a fixed number of statements."""

    def __init__(self, db: Db, due: Sequence[Due], ledger: Ledger, now: float) -> None:
        self._db = db
        self._now = now
        self._ledger = ledger
        self._decisions = Decisions(db)
        self._suspects = Suspects(due, ledger, self._decisions)
        self.able = {each.id for each in due}
        """Which may be judged: not those of a notification that is in other hands just now."""
        self.moved: list[NewChunk] = []
        """The chunks to be stored as their own, once `write` was called."""

    @classmethod
    async def of(cls, db: Db, chunks: Sequence[int], now: float) -> Self:
        """Of chunks that this transaction has locked. It waits for no lock, so that it may lock their notifications
        last."""
        of = f"SELECT DISTINCT notification FROM chunk WHERE id {db.among(1, 'bigint')}"
        mine = await hold(db, await column(db, of, list(chunks)), wait=False)
        rows = await db.rows(
            f"SELECT c.id, c.notification, c.binding, c.lane, c.attempt, {db.binary('c.states')}, "
            "(SELECT stopped FROM notification WHERE id = c.notification), c.owner, c.leased_at, c.leased_after, c.crashes, c.part, "
            f"{LONELY} "
            f"FROM chunk c WHERE c.id {db.among(1, 'bigint')} AND c.notification + 0 {db.among(2, 'bigint')}",
            list(chunks),
            mine,
        )
        due = [
            Due(id, notification, binding, lane, attempt, db.bytes_of(states), *rest)
            for id, notification, binding, lane, attempt, states, *rest in rows
        ]
        for each in due:
            if each.lost:
                _log.error(
                    "The chunk %d of the notification %d has no row in the table audience: its deliveries end as %s (%s). See whether "
                    "more of that table is missing.",
                    each.id,
                    each.notification,
                    *LOST,
                )
        return cls(db, due, db.hot.ledger(db, await codes_of(db, mine)), now)

    def judge(self, id: int) -> int:
        """End the doubtful deliveries of a lost worker, and stopped ones; count a crash. How many remain open in it."""
        return self._suspects.judge(id)

    async def write(self) -> None:
        """Store it all, but for the chunks in `moved`."""
        await self._ledger.write(self._now)
        if self._suspects.movers:
            audiences = await audiences_of(self._db, self._suspects.movers)
            self.moved = self._suspects.moved(audiences, self._now)
        await self._decisions.write(self._now)
        await self._ledger.finish(self._now)
