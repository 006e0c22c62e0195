"""Pause and resume, of a notification and of a binding, and what operators have asked of bindings.

What belongs to a paused notification changes its lane to ~lane: its times stay what they are, and nobody who looks for work in
the lanes meets it, were there a million of it. A binding's pause is one row that whoever looks for work there reads first.
"""

from __future__ import annotations

from fanout.core.records import Control
from fanout.errors import NotFound
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.decisions import Decisions

__all__ = [
    "PAUSED_BINDINGS",
    "controls",
    "pause",
    "pause_binding",
    "resume",
    "resume_binding",
    "retry_binding",
    "stands",
]

PAUSED_BINDINGS = "(SELECT binding FROM control WHERE paused)"

_TABLES = ("chunk", "retry", "expansion")
_LANES = "(-3, -2, -1, 0, 1, 2)"
"""Of what is paused and what is not. Chunks that wait for their turn stand elsewhere: nobody has leased them yet."""
_MENDED = "('gate', 'breaker', 'quota', 'budget')"
"""What ends when a binding can send again."""


def pause(db: Db, app: str, uuid: str, now: float) -> int:
    """Hold it; how many of its chunks are still leased. Raises `NotFound`."""
    id, stopped, finished_at, paused = _find(db, app, uuid)
    if not (stopped or paused or finished_at is not None):
        db.run("UPDATE notification SET paused = 1 WHERE id = ?", id)
        _move(db, id, "lane >= 0")
        _decide(db, id, "paused", now)
    return int(
        db.value(
            "SELECT count(*) FROM chunk WHERE notification = ? AND open > 0 AND owner IS NOT NULL AND ready_at > ?",
            id,
            now,
        )
    )


def resume(db: Db, app: str, uuid: str, now: float) -> None:
    """Let it go on. Raises `NotFound`."""
    id, _, _, paused = _find(db, app, uuid)
    if paused:
        db.run("UPDATE notification SET paused = 0 WHERE id = ?", id)
        _move(db, id, "lane < 0")
        _decide(db, id, "resumed", now)


def _find(db: Db, app: str, uuid: str) -> tuple[int, str, float | None, int]:
    for row in db.rows(
        "id, stopped, finished_at, paused", "notification WHERE uuid = ? AND app = ?", uuid, db.app(app)
    ):
        id, stopped, finished_at, paused = row
        return id, stopped, finished_at, paused
    raise NotFound(f"There is no notification {uuid} in the app {app}.")


def _move(db: Db, notification: int, which: str) -> None:
    for table in _TABLES:
        still = "open > 0 AND " if table == "chunk" else ""
        db.run(f"UPDATE {table} SET lane = ~lane WHERE notification = ? AND {still}{which}", notification)


def _decide(db: Db, number: int, what: str, now: float) -> None:
    decisions = Decisions(db)
    decisions.add(number, what)
    decisions.write(now)


# -- bindings


def pause_binding(db: Db, app: str, binding: str, now: float) -> int:
    """Hold everything of it; how many of its chunks are still leased."""
    place = db.binding(db.app(app, create=True), binding, create=True)
    if not stands(db, place):
        db.run(
            "INSERT INTO control (binding, paused, nudge) VALUES (?, 1, 0) ON CONFLICT (binding) DO UPDATE SET paused = 1",
            place,
        )
        _decide(db, -place, "paused", now)
    return int(
        db.value(
            f"SELECT count(*) FROM chunk WHERE binding = ? AND lane IN {_LANES} AND open > 0 AND ready_at > ? "
            "AND owner IS NOT NULL",
            place,
            now,
        )
    )


def resume_binding(db: Db, app: str, binding: str, now: float) -> None:
    """Let it go on, and ask its workers to try again at once."""
    place = db.binding(db.app(app, create=True), binding, create=True)
    if stands(db, place):
        db.run("UPDATE control SET paused = 0 WHERE binding = ?", place)
        _decide(db, -place, "resumed", now)
    _try_again(db, place, now)


def retry_binding(db: Db, app: str, binding: str, now: float) -> None:
    """Ask its workers to try again at once, what waited for them to be able to."""
    _try_again(db, db.binding(db.app(app, create=True), binding, create=True), now)


def _try_again(db: Db, place: int, now: float) -> None:
    db.run(
        f"UPDATE chunk SET ready_at = ?1 WHERE binding = ?2 AND lane IN {_LANES} AND open > 0 AND ready_at > ?1 "
        f"AND owner IS NULL AND waiting IN {_MENDED}",
        now,
        place,
    )
    db.run(
        f"UPDATE retry SET due_at = ?1 WHERE (notification, endpoint) IN (SELECT notification, endpoint FROM retry "
        f"INDEXED BY retry_due WHERE binding = ?2 AND lane IN {_LANES} AND due_at > ?1 AND waiting IN {_MENDED})",
        now,
        place,
    )
    db.run(
        "INSERT INTO control (binding, paused, nudge) VALUES (?, 0, 1) ON CONFLICT (binding) DO UPDATE SET nudge = nudge + 1",
        place,
    )


def stands(db: Db, binding: int) -> bool:
    """Whether this binding is paused."""
    return bool(db.value("SELECT paused FROM control WHERE binding = ?", binding))


def controls(db: Db) -> dict[tuple[str, str], Control]:
    """What was asked of which binding, by (app, binding)."""
    rows = db.rows(
        "a.name, b.name, c.paused, c.nudge",
        "control c CROSS JOIN binding b ON b.id = c.binding CROSS JOIN app a ON a.id = b.app",
    )
    return {(app, binding): Control(bool(paused), nudge) for app, binding, paused, nudge in rows}
