"""Pause and resume, of a notification and of a binding, and operators' requests for bindings.

Each chunk of a paused notification goes into the lanes of the paused (`fanout.storage.lanes`). A binding's pause is one
row that every lease there reads first; a pause passes alone where leases pass together, so that it counts all
that was leased before.
"""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.records import Control
from fanout.core.states import MENDED, Waiting
from fanout.storage import lanes
from fanout.storage.sql.db import Db
from fanout.storage.sql.decisions import Decisions
from fanout.storage.sql.ledger import hold_named

__all__ = [
    "PAUSED_BINDINGS",
    "bring_forward",
    "controls",
    "pause",
    "pause_binding",
    "resume",
    "resume_binding",
    "retry_binding",
]

PAUSED_BINDINGS = "(SELECT binding FROM control WHERE paused)"

_EVER, _PAGE = 1e18, 10_000


async def pause(db: Db, app: str, uuid: str, now: float) -> int:
    """Hold it; how many of its chunks are still leased. Raises `NotFound`."""
    id, stopped, finished_at, paused = await hold_named(db, app, uuid)
    if not (stopped or paused or finished_at is not None):
        await db.run("UPDATE notification SET paused = true WHERE id = $1", id)
        await _move(db, id, lanes.NOT_PAUSED)
        await _decide(db, id, "paused", now)
    return int(
        await db.value(
            "SELECT count(*) FROM chunk WHERE notification = $1 AND NOT done AND owner IS NOT NULL AND ready_at > $2",
            id,
            now + db.skew,
        )
    )


async def resume(db: Db, app: str, uuid: str, now: float) -> None:
    """Let it go on. Raises `NotFound`."""
    id, _, _, paused = await hold_named(db, app, uuid)
    if paused:
        await db.run("UPDATE notification SET paused = false WHERE id = $1", id)
        await _move(db, id, lanes.PAUSED)
        await _decide(db, id, "resumed", now)


async def _move(db: Db, notification: int, which: str) -> None:
    """Into the lanes of the paused or out of them. A chunk that is being leased at this moment is waited for."""
    await db.run(
        f"UPDATE chunk SET {lanes.FLIP} WHERE id IN "
        f"(SELECT id FROM chunk WHERE notification = $1 AND NOT done AND {which}{db.hold('id')})",
        notification,
    )
    for table in ("retry", "expansion"):
        await db.run(f"UPDATE {table} SET {lanes.FLIP} WHERE notification = $1 AND {which}", notification)


async def _decide(db: Db, number: int, what: str, now: float) -> None:
    decisions = Decisions(db)
    decisions.add(number, what)
    await decisions.write(now)


# -- bindings


async def pause_binding(db: Db, app: str, binding: str, now: float) -> int:
    """Hold all work of the binding; how many of its chunks are still leased."""
    binding_number = await _number(db, app, binding)
    await db.exclusive("binding", binding_number)
    if not await db.value("SELECT paused FROM control WHERE binding = $1", binding_number):
        await db.run(
            "INSERT INTO control (binding, paused, nudge) VALUES ($1, true, 0) ON CONFLICT (binding) DO UPDATE SET paused = true",
            binding_number,
        )
        await _decide(db, -binding_number, "paused", now)
    return int(
        await db.value(
            f"SELECT count(*) FROM chunk WHERE binding = $1 AND {lanes.OF_WORKERS_OR_PAUSED} AND NOT done AND ready_at > $2 "
            "AND owner IS NOT NULL",
            binding_number,
            now + db.skew,
        )
    )


async def resume_binding(db: Db, app: str, binding: str, now: float) -> None:
    """Let the binding go on, and ask its workers to try again at once."""
    binding_number = await _number(db, app, binding)
    if await db.run("UPDATE control SET paused = false WHERE binding = $1 AND paused", binding_number):
        await _decide(db, -binding_number, "resumed", now)
    await _try_again(db, binding_number, now)


async def retry_binding(db: Db, app: str, binding: str, now: float) -> None:
    """Ask its workers to try deliveries again at once that waited because no worker could send them."""
    await _try_again(db, await _number(db, app, binding), now)


async def _number(db: Db, app: str, binding: str) -> int:
    return await db.binding(await db.app(app, create=True), binding, create=True)


async def _try_again(db: Db, binding_number: int, now: float) -> None:
    await db.run(
        "INSERT INTO control AS c (binding, paused, nudge) VALUES ($1, false, 1) ON CONFLICT (binding) "
        "DO UPDATE SET nudge = c.nudge + 1",
        binding_number,
    )
    while await _forward(db, MENDED, "true", binding_number, now, _EVER, _PAGE):
        pass


async def bring_forward(db: Db, app: str, binding: str, before: float, now: float, limit: int) -> int:
    """The deliveries that were given back before `before` to wait for a gate are due; the number of chunks and retry
    rows."""
    moved = await _forward(db, [Waiting.GATE], "NOT holds", await _number(db, app, binding), now, before, limit)
    db.silent = not moved
    return moved


_KEYS = {"chunk": {"id": "bigint", "binding": "int"}, "retry": {"notification": "bigint", "endpoint": "bigint"}}


async def _forward(
    db: Db, words: Sequence[Waiting], retries: str, binding: int, now: float, before: float, limit: int
) -> int:
    """At most `limit` chunks, and retry rows. A row that another transaction holds is being leased, or ends.

    They are chosen by a statement of their own: as a part of the UPDATE, PostgreSQL may run it for each row, and each
    time it finds `limit` others. In PostgreSQL a retry goes into another partition.
    """
    waits = f"waiting IN ({', '.join(repr(word.value) for word in words)})"
    moved = 0
    for table, at, free in (("chunk", "ready_at", "NOT done AND owner IS NULL"), ("retry", "due_at", retries)):
        first, second = _KEYS[table]
        found = await db.rows(
            f"SELECT {first}, {second} FROM {table} WHERE binding = $1 AND {free} AND {waits} AND {lanes.OF_WORKERS_OR_PAUSED} "
            f"AND {at} > $2 AND coalesce(since, 0) < $3 ORDER BY lane, {at} LIMIT $4{db.hold(free=True)}",
            *(binding, now, before, limit),
        )
        moved += await db.many(
            f"UPDATE {table} AS t SET {at} = $3 FROM {db.given(1, **_KEYS[table])} "
            f"WHERE {db.keyed(f't.{first}', f'j.{first}')} AND t.{second} = j.{second}",
            found,
            now,
        )
    return moved


async def controls(db: Db) -> dict[tuple[str, str], Control]:
    """The requests of operators for each binding, by (app, binding)."""
    rows = await db.rows(
        "SELECT a.name, b.name, c.paused, c.nudge FROM control c JOIN binding b ON b.id = c.binding JOIN app a ON a.id = b.app "
        "WHERE c.paused OR c.nudge > 0"
    )
    return {(app, binding): Control(bool(paused), nudge) for app, binding, paused, nudge in rows}
