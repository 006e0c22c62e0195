"""The gates that workers say they have closed: one row each, the last word about it."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.records import GateNote
from fanout.storage.gates import ALARM, LONGER, told_until, weigh
from fanout.storage.postgres.db import Db

__all__ = ["STANDS", "gates", "post"]

STANDS = f"until + {LONGER} >"
"""The condition for a row to stand; the time belongs behind it."""

_LOCK = "pg_advisory_xact_lock(1178685007, 3)"
"""Held while notes are weighed: two workers that meet one trouble raise one alarm. The first number is `FANO` in ASCII."""


async def post(db: Db, worker: str, notes: Sequence[GateNote], now: float) -> None:
    """Keep the last note of each gate; a closed one with an alarm, and its opening, go to the event log."""
    apps = [await db.app(note.app, create=bool(note.waiting)) for note in notes]
    keys = [
        (await db.binding(app, note.binding, create=bool(note.waiting)), note.scope, note.name)
        for app, note in zip(apps, notes, strict=True)
    ]
    await db.value(f"SELECT {_LOCK}")
    await db.run(f"DELETE FROM gate WHERE NOT {STANDS} $1", now)
    if not keys:
        return
    known = await db.rows(
        "SELECT g.binding, g.scope, g.name, g.alarm FROM unnest($1::int[], $2::text[], $3::text[]) j (binding, scope, name) CROSS JOIN LATERAL "
        "(SELECT * FROM gate WHERE binding = j.binding AND scope = j.scope AND name = j.name OFFSET 0) g",
        *zip(*keys, strict=True),
    )
    words = weigh(worker, notes, apps, keys, {(place, scope, name): alarm for place, scope, name, alarm in known})
    await db.many(
        "DELETE FROM gate g USING unnest($1::int[], $2::text[], $3::text[]) j (binding, scope, name) "
        "WHERE g.binding = ANY (ARRAY[j.binding]) AND g.scope = j.scope AND g.name = j.name",
        words.opened,
    )
    await db.many(
        "INSERT INTO gate (binding, scope, name, waiting, reason, until, alarm, whole, worker, since) SELECT *, $10::float8 FROM unnest($1::int[], "
        "$2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::smallint[], $8::boolean[], $9::text[]) "
        "ON CONFLICT (binding, scope, name) DO UPDATE SET waiting = excluded.waiting, reason = excluded.reason, "
        "until = excluded.until, alarm = excluded.alarm, whole = excluded.whole, worker = excluded.worker, since = excluded.since",
        words.closed.values(),
        now,
    )
    await db.log(now, words.events)


async def gates(db: Db, now: float) -> list[GateNote]:
    """Those that stand, by app, binding, scope and name."""
    rows = await db.rows(
        "SELECT a.name, b.name, g.scope, g.name, g.waiting, g.reason, g.until, g.alarm, g.whole, g.worker, g.since FROM gate g "
        f"JOIN binding b ON b.id = g.binding JOIN app a ON a.id = b.app WHERE g.{STANDS} $1",
        now,
    )
    found = [
        GateNote(app, place, scope, name, waiting, reason, told_until(since, until, now), alarm == ALARM, whole, worker)
        for app, place, scope, name, waiting, reason, until, alarm, whole, worker, since in rows
    ]
    return sorted(found, key=lambda note: (note.app, note.binding, note.scope, note.name))
