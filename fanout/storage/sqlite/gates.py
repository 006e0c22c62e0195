"""The gates that workers say they have closed: one row each, the last word about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.records import GateNote
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["STANDS", "gates", "post"]

_LONGER = 60.0
"""Seconds that a note stands beyond its `until`: workers post the next one when the probe has failed."""

STANDS = f"until + {_LONGER} >"
"""The condition for a row to stand; the time belongs behind it."""

_CALM, _ALARM, _OWED = 0, 1, 2
"""Of the column `alarm`: see the schema."""
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
    alarmed = {(place, scope, name): bool(alarm) for place, scope, name, alarm in known}
    standing: dict[tuple[int, str, str], list[Any]] = {}
    events: list[tuple[int, str, dict[str, Any]]] = []
    for key, note in zip(keys, notes, strict=True):
        app = db.app(note.app)
        about: dict[str, Any] = {"binding": note.binding, "scope": note.scope, "name": note.name}
        if note.waiting:
            owed = alarmed.get(key, False)
            alarm = _ALARM if note.alarm else _OWED if owed else _CALM
            standing[key] = [*key, note.waiting, note.reason, note.until, alarm, note.whole, worker]
            alarmed[key] = note.alarm or owed
            if note.alarm and not owed:
                about |= {"waiting": note.waiting, "reason": note.reason, "until": note.until}
                events.append((app, "binding.parked", about))
        else:
            standing.pop(key, None)
            if alarmed.pop(key, False):
                events.append((app, "binding.opened", about))
    db.many(
        "DELETE FROM gate WHERE (binding, scope, name) IN (SELECT value->>0, value->>1, value->>2 FROM json_each(?))",
        set(keys) - set(standing),
    )
    db.many(
        f"INSERT OR REPLACE INTO gate ({_COLUMNS}) SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, "
        "value->>6, value->>7, value->>8 FROM jsonb_each(?)",
        standing.values(),
    )
    db.log(now, events)


def gates(db: Db, now: float) -> list[GateNote]:
    """Those that stand, by app, binding, scope and name."""
    rows = db.rows(
        "app, place, scope, name, waiting, reason, until, alarm, whole, worker",
        "(SELECT a.name AS app, b.name AS place, g.* FROM gate g CROSS JOIN binding b ON b.id = g.binding "
        f"CROSS JOIN app a ON a.id = b.app WHERE g.{STANDS} ?)",
        now,
    )
    found = [
        GateNote(app, place, scope, name, waiting, reason, until, alarm == _ALARM, bool(whole), worker)
        for app, place, scope, name, waiting, reason, until, alarm, whole, worker in rows
    ]
    return sorted(found, key=lambda note: (note.app, note.binding, note.scope, note.name))
