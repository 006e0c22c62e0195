"""The gates that workers say they have closed: one row each, the last word about it."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.records import GateNote
from fanout.storage.gates import ALARM, LONGER, told_until, weigh
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["STANDS", "gates", "post"]

STANDS = f"until + {LONGER} >"
"""The condition for a row to stand; the time belongs behind it."""

_COLUMNS = "binding, scope, name, waiting, reason, until, alarm, whole, worker"


def post(db: Db, worker: str, notes: Sequence[GateNote], now: float) -> None:
    """Keep the last note of each gate; a closed one with an alarm, and its opening, go to the event log."""
    db.run(f"DELETE FROM gate WHERE NOT {STANDS} ?", now)
    places = [
        db.binding(db.app(note.app, create=closed), note.binding, create=closed)
        for note in notes
        for closed in (bool(note.waiting),)
    ]
    keys = [(place, note.scope, note.name) for place, note in zip(places, notes, strict=True)]
    known = db.rows(
        "g.binding, g.scope, g.name, g.alarm",
        "json_each(?) j CROSS JOIN gate g ON g.binding = j.value->>0 AND g.scope = j.value->>1 AND g.name = j.value->>2",
        dumps(keys),
    )
    alarms = {(place, scope, name): alarm for place, scope, name, alarm in known}
    words = weigh(worker, notes, [db.app(note.app) for note in notes], keys, alarms)
    db.many(
        "DELETE FROM gate WHERE (binding, scope, name) IN (SELECT value->>0, value->>1, value->>2 FROM json_each(?))",
        words.opened,
    )
    db.many(
        f"INSERT OR REPLACE INTO gate ({_COLUMNS}, since) SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, "
        "value->>6, value->>7, value->>8, ?2 FROM jsonb_each(?1)",
        words.closed.values(),
        now,
    )
    db.log(now, words.events)


def gates(db: Db, now: float) -> list[GateNote]:
    """Those that stand, by app, binding, scope and name."""
    rows = db.rows(
        "app, place, scope, name, waiting, reason, until, alarm, whole, worker, since",
        "(SELECT a.name AS app, b.name AS place, g.* FROM gate g CROSS JOIN binding b ON b.id = g.binding "
        f"CROSS JOIN app a ON a.id = b.app WHERE g.{STANDS} ?)",
        now,
    )
    found = [
        GateNote(
            app, place, scope, name, waiting, reason, told_until(since, until, now), alarm == ALARM, bool(whole), worker
        )
        for app, place, scope, name, waiting, reason, until, alarm, whole, worker, since in rows
    ]
    return sorted(found, key=lambda note: (note.app, note.binding, note.scope, note.name))
