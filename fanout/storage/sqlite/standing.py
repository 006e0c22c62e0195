"""How things stand: one notification's status, what is outstanding, and an app's backlog."""

from __future__ import annotations

from collections import Counter

from fanout.core.records import Backlog, Status
from fanout.core.states import FINAL_STATES, NotificationState, Waiting
from fanout.storage.chunks import TARGET, WAITS
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.gates import STANDS
from fanout.storage.sqlite.pausing import PAUSED_BINDINGS

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
EXISTS (SELECT 1 FROM expansion WHERE notification = n.id AND binding = 0),
json((SELECT json_group_array(json_array(state, reason, n)) FROM tally WHERE notification = n.id)),
json((SELECT json_group_array(json_array(binding, held, due, waiting, m)) FROM (
  SELECT binding, owner IS NOT NULL AND ready_at > ?2 AS held, ready_at <= ?2 OR lane >= {WAITS} AS due, waiting, sum(open) AS m
  FROM chunk WHERE notification = n.id AND open > 0 GROUP BY 1, 2, 3, 4
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
    app, total, settled, expansions, attempts, stopped, paused, accepted_at, due_at, expires_at, finished_at = rows[0][
        :11
    ]
    scheduled, ended, chunks, retries, due_retries, paused_bindings, gates = rows[0][11:]
    counts = {"pending": total - settled} | dict.fromkeys(FINAL_STATES, 0)
    reasons: dict[str, dict[str, int]] = {}
    for state, reason, n in ended:
        counts[state] += n
        reasons.setdefault(state, {})[reason] = n
    # Of a binding's gates, the one that is closed until latest has the word.
    before = {binding: waiting for _, binding, waiting in sorted(gates)} | dict.fromkeys(paused_bindings, _PAUSED)
    pending: Counter[str] = Counter()

    def count(binding: int, due: bool, waiting: str, n: int) -> None:
        """Count what nobody holds, by what it waits for."""
        own = _LANE if due else waiting
        pending[_PAUSED if paused else before.get(binding, own)] += n

    for binding, held, due, waiting, n in chunks:
        if held:
            pending[_READY] += n
        else:
            count(binding, due, waiting, n)
    due_of = {(binding, waiting): n for binding, waiting, n in due_retries}
    for binding, waiting, n in retries:
        due = due_of.get((binding, waiting), 0)
        count(binding, True, waiting, due)
        count(binding, False, waiting, n - due)
    return Status(
        id=uuid,
        app=app,
        state=_state(stopped, finished_at, paused, scheduled, expansions),
        total=None if expansions else total,
        counts=counts,
        pending_by_reason=dict(+pending),
        reasons=reasons,
        attempts=attempts,
        accepted_at=accepted_at,
        due_at=due_at,
        expires_at=expires_at,
        finished_at=finished_at,
        oldest_pending_at=due_at if finished_at is None else None,
    )


def _state(stopped: str, finished_at: float | None, paused: int, scheduled: int, expansions: int) -> str:
    if stopped:
        return NotificationState.CANCELLED.value
    if finished_at is not None:
        return NotificationState.DONE.value
    if paused:
        return NotificationState.PAUSED.value
    if scheduled:
        return NotificationState.SCHEDULED.value
    return NotificationState.EXPANDING.value if expansions else NotificationState.RUNNING.value


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
        f"(SELECT CASE WHEN owner IS NOT NULL THEN 'leased' ELSE {WORD} END AS word, sum(open) AS n FROM chunk WHERE open > 0{chunks} GROUP BY 1 "
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
