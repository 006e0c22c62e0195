"""How things stand: one notification's status, what is outstanding, and an app's backlog."""

from __future__ import annotations

from collections import Counter

from fanout.core.records import Backlog, Status
from fanout.core.states import Waiting
from fanout.storage.chunks import TARGET, WAITS
from fanout.storage.sql.gates import STANDS
from fanout.storage.sql.pausing import PAUSED_BINDINGS
from fanout.storage.sqlite.db import Db
from fanout.storage.standing import Sums, status_of, waiting_for

__all__ = ["WORD", "backlog", "outstanding", "status"]

_READY = Waiting.READY.value
_PAUSED = Waiting.PAUSED.value
_LANE = Waiting.LANE.value

WORD = (
    f"CASE WHEN lane < 0 OR binding IN {PAUSED_BINDINGS} THEN '{_PAUSED}' "
    f"WHEN lane >= {WAITS} THEN '{_LANE}' ELSE waiting END"
)
"""What a chunk or retry row that nobody has leased waits for, whatever the time and the gates."""

_STATUS = f"""
a.name, n.total, n.settled, n.expansions, n.attempts, n.stopped, n.paused, n.accepted_at, n.due_at, n.expires_at, n.finished_at,
EXISTS (SELECT 1 FROM expansion WHERE notification = n.id AND binding = 0), n.unexpanded,
json((SELECT json_group_array(json_array(state, reason, n)) FROM tally WHERE notification = n.id)),
json((SELECT json_group_array(json_array(binding, held, due, waiting, m)) FROM (
  SELECT binding, owner IS NOT NULL AND ready_at > ?2 AS held, ready_at <= ?2 OR lane >= {WAITS} AS due, waiting, sum(open) AS m
  FROM chunk WHERE notification = n.id AND NOT done GROUP BY 1, 2, 3, 4
))),
json((SELECT json_group_array(json_array(binding, waiting, n)) FROM backlog WHERE notification = n.id)),
json((SELECT json_group_array(json_array(binding, waiting, m)) FROM (
  SELECT r.binding, r.waiting, count(*) AS m FROM retry r INDEXED BY retry_due
  WHERE r.binding IN (SELECT binding FROM backlog WHERE notification = n.id) AND r.lane = n.lane AND r.due_at <= ?2
  AND r.notification = n.id GROUP BY 1, 2
))),
json((SELECT json_group_array(b.id) FROM binding b WHERE b.app = n.app AND b.id IN {PAUSED_BINDINGS})),
json((SELECT json_group_array(json_array(g.until, g.binding, g.waiting)) FROM binding b
  CROSS JOIN gate g ON g.binding = b.id WHERE b.app = n.app AND g.whole AND g.{STANDS} ?2))
"""


def status(db: Db, uuid: str, now: float) -> Status | None:
    """The notification's state of affairs, read in one statement, so that it adds up."""
    rows = db.rows(_STATUS, "notification n JOIN app a ON a.id = n.app WHERE n.uuid = ?1", uuid, now)
    if not rows:
        return None
    sums = Sums(*rows[0][:14])
    return status_of(uuid, sums, waiting_for(sums.paused, *rows[0][14:]))


def outstanding(db: Db, app: str | None) -> dict[str, int]:
    """Deliveries of unfinished notifications by what they wait for."""
    chunks = backlog = expansions = ""
    arguments: tuple[int, ...] = ()
    if app is not None:
        chunks = " AND binding IN (SELECT id FROM binding WHERE app = ?1)"
        backlog = " WHERE binding IN (SELECT id FROM binding WHERE app = ?1)"
        expansions = " AND app = ?1"
        arguments = (db.app(app),)
    rows = db.rows(
        "word, n",
        f"(SELECT CASE WHEN owner IS NOT NULL THEN 'leased' ELSE {WORD} END AS word, sum(open) AS n FROM chunk WHERE NOT done{chunks} GROUP BY 1 "
        f"UNION ALL SELECT CASE WHEN binding IN {PAUSED_BINDINGS} "
        f"OR (SELECT paused FROM notification WHERE id = backlog.notification) THEN '{_PAUSED}' ELSE waiting END, sum(n) "
        f"FROM backlog{backlog} GROUP BY 1 "
        f"UNION ALL SELECT CASE WHEN lane < 0 OR binding IN {PAUSED_BINDINGS} THEN '{_PAUSED}' "
        f"WHEN binding = 0 THEN '{Waiting.SCHEDULED.value}' ELSE '{_READY}' END, count(*) "
        f"FROM expansion WHERE target <> '{TARGET}'{expansions} GROUP BY 1)",
        *arguments,
    )
    found: Counter[str] = Counter()
    for word, n in rows:
        found[word] += n
    return dict(found)


def backlog(db: Db, app: str) -> Backlog:
    """What the app's notifications still have before them."""
    number = db.app(app)
    for deliveries, size, oldest_at in db.rows(
        "deliveries, bytes, (SELECT min(due_at) FROM notification WHERE app = ?1 AND finished_at IS NULL)",
        "load WHERE app = ?1",
        number,
    ):
        return Backlog(deliveries, size, oldest_at)
    return Backlog()
