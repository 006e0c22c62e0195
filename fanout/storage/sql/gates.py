"""The gates that workers say they have closed: one row each, the last word about it."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.records import GateNote
from fanout.storage.gates import ALARM, LONGER, reported_until, weigh
from fanout.storage.sql.db import Db, Rows, overwrite

__all__ = ["STANDS", "gates", "post"]

STANDS = f"until + {LONGER} >"
"""The condition for a row to stand; the time belongs behind it."""

_KEY = {"binding": "int", "scope": "text", "name": "text"}
_REST = {
    "waiting": "text",
    "reason": "text",
    "until": "float8",
    "alarm": "smallint",
    "whole": "boolean",
    "worker": "text",
}
_COLUMNS = ", ".join(_KEY | _REST)


async def post(db: Db, worker: str, notes: Sequence[GateNote], now: float) -> None:
    """Keep the last note of each gate; a closed one with an alarm, and its opening, go to the event log."""
    apps = [await db.app(note.app, create=bool(note.waiting)) for note in notes]
    keys = [
        (await db.binding(app, note.binding, create=bool(note.waiting)), note.scope, note.name)
        for app, note in zip(apps, notes, strict=True)
    ]
    await db.exclusive("gates")  # two workers that meet one trouble raise one alarm
    await db.run(f"DELETE FROM gate WHERE NOT {STANDS} $1", now)
    if not keys:
        return
    closed = await db.rows(
        f"SELECT g.binding, g.scope, g.name, g.alarm FROM {db.joined(1, 'gate g', **_KEY)}", Rows(keys, 3)
    )
    words = weigh(worker, notes, apps, keys, {(place, scope, name): alarm for place, scope, name, alarm in closed})
    await db.many(db.deleting("gate", 1, **_KEY), words.opened)
    await db.many(
        f"INSERT INTO gate ({_COLUMNS}, since) SELECT {_COLUMNS}, CAST($10 AS float8) FROM {db.given(1, **_KEY, **_REST)} "
        f"WHERE true ON CONFLICT ({', '.join(_KEY)}) {overwrite(*_REST, 'since')}",
        words.closed.values(),
        now,
    )
    await db.log(now, words.events)


async def gates(db: Db, now: float) -> list[GateNote]:
    """The gates that stand, by app, binding, scope and name."""
    rows = await db.rows(
        "SELECT a.name, b.name, g.scope, g.name, g.waiting, g.reason, g.until, g.alarm, g.whole, g.worker, g.since FROM gate g "
        f"JOIN binding b ON b.id = g.binding JOIN app a ON a.id = b.app WHERE g.{STANDS} $1",
        now,
    )
    found = [
        GateNote(*[*about, reported_until(since, until, now), alarm == ALARM, bool(whole), worker])
        for *about, until, alarm, whole, worker, since in rows
    ]
    return sorted(found, key=lambda note: (note.app, note.binding, note.scope, note.name))
