"""How things stand: one notification's status, the outstanding deliveries, and an app's backlog."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from fanout.core.records import Backlog, Status
from fanout.core.states import Waiting
from fanout.storage import lanes
from fanout.storage.chunks import TARGET
from fanout.storage.sql.db import Db, made_once
from fanout.storage.sql.gates import STANDS
from fanout.storage.sql.pausing import PAUSED_BINDINGS
from fanout.storage.standing import Sums, status_of, waiting_for

__all__ = ["WORD", "backlog", "outstanding", "status"]

_READY = Waiting.READY.value
_PAUSED = Waiting.PAUSED.value
_LANE = Waiting.LANE.value

WORD = (
    f"CASE WHEN {lanes.PAUSED} OR binding IN {PAUSED_BINDINGS} THEN '{_PAUSED}' "
    f"WHEN {lanes.IN_TURN} THEN '{_LANE}' ELSE waiting END"
)
"""The waiting reason of a chunk or retry row without a lease, at any time and with any gates."""

_SUMS = """a.name, n.total, n.settled, n.expansions, n.attempts, n.stopped, n.paused, n.accepted_at, n.due_at, n.expires_at,
n.finished_at, EXISTS (SELECT 1 FROM expansion WHERE notification = n.id AND binding = 0), n.unexpanded"""
_CHUNKS = f"""(SELECT binding, owner IS NOT NULL AND ready_at > $3 AS held,
CASE WHEN owner IS NULL THEN ready_at <= $2 ELSE ready_at <= $3 END OR {lanes.IN_TURN} AS due, waiting, sum(open) AS m
FROM chunk WHERE notification = n.id AND NOT done GROUP BY 1, 2, 3, 4) chunks"""


@made_once
def _status(db: Db) -> str:
    due = (
        f"(SELECT r.binding, r.waiting, count(*) AS m FROM {db.retries_of('n.id')} AND r.lane = n.lane AND r.due_at <= $2 "
        "GROUP BY 1, 2) ripe"
    )
    gates = f"binding b CROSS JOIN gate g WHERE g.binding = b.id AND b.app = n.app AND g.whole AND g.{STANDS} $2"
    lists = (
        ("state, reason, n", "(SELECT state, reason, n FROM tally t WHERE t.notification = n.id ORDER BY code) ended"),
        ("binding, held, due, waiting, m", _CHUNKS),
        (
            "binding, waiting, n",
            "(SELECT binding, waiting, n FROM backlog b WHERE b.notification = n.id AND b.n > 0) b",
        ),
        ("binding, waiting, m", due),
        ("b.id", f"binding b WHERE b.app = n.app AND b.id IN {PAUSED_BINDINGS}"),
        ("g.until, g.binding, g.waiting", gates),
    )
    found = ", ".join(db.lists(columns, rest) for columns, rest in lists)
    return f"SELECT {_SUMS}, {found} FROM notification n JOIN app a ON a.id = n.app WHERE n.uuid = $1"


async def status(db: Db, uuid: str, now: float) -> Status | None:
    """The notification's state of affairs, read in one statement, so that it adds up."""
    row = await db.row(_status(db), uuid, now, now + db.skew)
    if row is None:
        return None
    ended, chunks, retries, due, bindings, gates = orjson.loads(f"[{','.join(tuple(row)[13:])}]")
    found = Sums(*[*tuple(row)[:13], ended])
    pending = waiting_for(found.paused, chunks, retries, due, [binding for (binding,) in bindings], gates)
    return status_of(uuid, found, pending)


async def outstanding(db: Db, app: str | None) -> dict[str, int]:
    """Deliveries of unfinished notifications by their waiting reasons."""
    of_app, expansions = "", ""
    arguments: tuple[Any, ...] = ()
    if app is not None:
        of_app = " AND binding IN (SELECT id FROM binding WHERE app = $1)"
        expansions = " AND app = $1"
        arguments = (await db.app(app),)
    rows = await db.rows(
        f"SELECT CASE WHEN owner IS NOT NULL THEN 'leased' ELSE {WORD} END AS word, sum(open) AS n FROM chunk WHERE NOT done{of_app} GROUP BY 1 "
        f"UNION ALL SELECT CASE WHEN binding IN {PAUSED_BINDINGS} "
        f"OR (SELECT paused FROM notification WHERE id = backlog.notification) THEN '{_PAUSED}' ELSE waiting END, sum(n) "
        f"FROM backlog WHERE n > 0{of_app} GROUP BY 1 "
        f"UNION ALL SELECT CASE WHEN {lanes.PAUSED} OR binding IN {PAUSED_BINDINGS} THEN '{_PAUSED}' "
        f"WHEN binding = 0 THEN '{Waiting.SCHEDULED.value}' ELSE '{_READY}' END, count(*) "
        f"FROM expansion WHERE target <> '{TARGET}'{expansions} GROUP BY 1",
        *arguments,
    )
    found: Counter[str] = Counter()
    for word, n in rows:
        found[word] += int(n)
    return dict(found)


async def backlog(db: Db, app: str) -> Backlog:
    """The deliveries that the app's notifications still have before them."""
    row = await db.row(
        "SELECT CAST(sum(deliveries) AS bigint), CAST(sum(bytes) AS bigint), "
        "(SELECT min(due_at) FROM notification WHERE app = $1 AND finished_at IS NULL) FROM load WHERE app = $1",
        await db.app(app),
    )
    return Backlog() if row is None or row[0] is None else Backlog(*row)
