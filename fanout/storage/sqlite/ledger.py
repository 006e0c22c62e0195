"""The bookkeeping that every end of a delivery goes through: chunks' maps, tallies, sums, and the end of a
notification."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.records import Settled
from fanout.core.statemap import Codes
from fanout.storage.book import ending
from fanout.storage.chunks import COLUMNS, NewChunk
from fanout.storage.packing import pack
from fanout.storage.sql.hot import Ledger as Shared
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.standing import finals

__all__ = ["LAST_DECISION", "Ledger", "add_chunks", "fill", "finish_ready"]

LAST_DECISION = "(SELECT coalesce(max(id), 0) FROM decision)"
"""Its number, so that something can be said to come after it."""


def add_chunks(db: Db, chunks: Sequence[NewChunk], now: float) -> Sequence[int]:
    """Store new chunks, without a lease; their numbers, which ascend."""
    if not chunks:
        return ()
    first = db.next_id("chunk")
    db.many(_ADD_CHUNKS, [(id, *chunk.row(now)) for id, chunk in enumerate(chunks, first)], now)
    db.many(
        "INSERT INTO audience (chunk, ids) SELECT value->>0, unhex(value->>1) FROM jsonb_each(?)",
        [(id, pack(chunk.ids).hex()) for id, chunk in enumerate(chunks, first)],
    )
    return range(first, first + len(chunks))


_ADD_CHUNKS = (
    f"INSERT INTO chunk (id, {COLUMNS}, created_at, created_after, epoch, waiting) SELECT value->>0, value->>1, value->>2, value->>3, "
    "value->>4, value->>5, value->>6, value->>7, value->>8, unhex(value->>9), value->>10, value->>11, value->>12, value->>13, "
    f"?2, {LAST_DECISION}, 0, 'ready' FROM jsonb_each(?1)"
)


class Ledger(Shared):
    """Collects the deliveries that a transaction ends, and writes them in a few statements."""

    def __init__(self, db: Db, codes: dict[int, Codes] | None = None) -> None:
        super().__init__(codes)
        self._db = db

    async def write(self, now: float) -> None:
        """Store it all. A notification that is finished with that is for `finish_ready` to find."""
        self._db.many(
            "UPDATE chunk SET states = unhex(j.value->>1), open = j.value->>2, settled_at = iif(j.value->>3, ?2, settled_at), "
            "owner = CASE WHEN j.value->>2 > 0 THEN owner END FROM jsonb_each(?1) j WHERE chunk.id = j.value->>0",
            ((id, *changed) for id, changed in self.maps.items()),
            now,
        )
        self._db.many(
            "INSERT INTO tally (notification, code, state, reason, n) "
            "SELECT value->>0, value->>1, value->>2, value->>3, value->>4 FROM jsonb_each(?) WHERE true "
            "ON CONFLICT (notification, code) DO UPDATE SET n = n + excluded.n",
            self.tallies(),
        )
        self._db.many(
            "UPDATE notification SET settled = settled + j.value->>1, total = total + j.value->>2, "
            "attempts = attempts + j.value->>3, expansions = expansions + j.value->>4 "
            "FROM jsonb_each(?) j WHERE notification.id = j.value->>0",
            self.sums(),
        )
        self._db.many(
            "UPDATE chunk SET crashes = j.value->>1, part = j.value->>2 FROM jsonb_each(?) j WHERE chunk.id = j.value->>0",
            self.parts,
        )
        self._db.many(
            "UPDATE chunk SET owner = NULL, ready_at = j.value->>1, waiting = j.value->>2, since = ?2 "
            "FROM jsonb_each(?1) j WHERE chunk.id = j.value->>0",
            self.releases,
            now,
        )

    async def finish(self, now: float) -> dict[int, Settled]:
        """`finish_ready` for every notification that `write` changed."""
        return finish_ready(self._db, list(self.changes), now)


def finish_ready(db: Db, notifications: Sequence[int], now: float) -> dict[int, Settled]:
    """Notifications of these without open deliveries become finished, with an event each (see `sql.hot`)."""
    if not notifications:
        return {}
    rows = db.rows(
        "n.id, n.app, n.uuid, n.total, n.stopped, json((SELECT json_group_array(json_array(state, reason, n)) FROM "
        "(SELECT state, reason, n FROM tally WHERE notification = n.id ORDER BY code))), "
        "a.name, n.attempts, n.unexpanded, n.accepted_at, n.due_at, n.expires_at",
        "json_each(?) j CROSS JOIN notification n ON n.id = j.value CROSS JOIN app a ON a.id = n.app "
        "WHERE n.finished_at IS NULL AND n.expansions = 0 AND n.settled = n.total",
        dumps(list(notifications)),
    )
    if not rows:
        return {}
    db.run(
        "UPDATE notification SET finished_at = ?, paused = 0 WHERE id IN (SELECT value FROM jsonb_each(?))",
        now,
        dumps([row[0] for row in rows]),
    )
    db.log(now, ((row[1], "notification.finished", ending(*row[2:6])) for row in rows))
    return finals(rows, now)


def fill(db: Db, rows: Sequence[tuple[int, int, bytes]]) -> None:
    """Give scheduled notifications their new content: (number, bytes of content so far, new content). A trigger keeps
    the load."""
    db.many(
        "UPDATE notification SET content = unhex(j.value->>1) FROM jsonb_each(?) j WHERE notification.id = j.value->>0",
        [(id, content) for id, _, content in rows],
    )
