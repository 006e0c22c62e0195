"""What becomes of a due chunk before it is leased again: after a stop, after doubt, and after the loss of its worker."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.storage.chunks import NewChunk
from fanout.storage.sql.decisions import Decisions
from fanout.storage.sql.ledger import codes_of
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.ledger import Ledger
from fanout.storage.sqlite.session import Session, finished, shared
from fanout.storage.suspects import Due, Suspects

__all__ = ["Inspection"]


class Inspection:
    """Judges chunks one by one, and writes all of it in a fixed number of statements."""

    def __init__(self, db: Db, chunks: Sequence[int], now: float) -> None:
        rows = db.rows(
            "c.id, c.notification, c.binding, c.lane, c.attempt, hex(c.states), n.stopped, c.owner, c.leased_at, c.leased_after, "
            "c.crashes, c.part",
            "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN notification n ON n.id = c.notification",
            dumps(list(chunks)),
        )
        due = [
            Due(id, notification, binding, lane, attempt, bytes.fromhex(states), *rest)
            for id, notification, binding, lane, attempt, states, *rest in rows
        ]
        self._db = db
        self._now = now
        self._ledger = Ledger(db, shared(db, codes_of, {each.notification for each in due}))
        self._decisions = Decisions(Session(db))
        self._suspects = Suspects(due, self._ledger, self._decisions)
        self.moved: list[NewChunk] = []
        """What is to be stored as chunks of their own, once `write` was called."""

    def judge(self, id: int) -> int:
        """End what a lost worker had marked as doubtful, and what is stopped; count a crash. How many remain open in it."""
        return self._suspects.judge(id)

    def write(self) -> None:
        """Store it all, but for what is `moved`."""
        finished(self._ledger.write(self._now))
        self._db.many(
            "UPDATE chunk SET crashes = j.value->>1, part = j.value->>2 FROM jsonb_each(?) j WHERE chunk.id = j.value->>0",
            self._suspects.parts,
        )
        if self._suspects.movers:
            audiences = self._db.pairs(
                "chunk, hex(ids)",
                "audience WHERE chunk IN (SELECT value FROM json_each(?))",
                dumps(self._suspects.movers),
            )
            self.moved = self._suspects.moved({id: unpack(ids) for id, ids in audiences.items()}, self._now)
        finished(self._decisions.write(self._now))
        finished(self._ledger.finish(self._now))
