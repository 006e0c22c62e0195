"""The fleet facet: `SqliteStorage.fleet`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

from fanout.core.fleet import Part, SharedToken, WorkerNote, forsaken, grant, outlived, supersedes
from fanout.plugin import Clock
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.tokens import kept_token, opened_token

__all__ = ["SqliteFleet"]

_MOST = 1e300
"""What stands for an infinite demand: JSON has no word for it."""


class SqliteFleet:
    """`plugin.fleet.Fleet`, by the storage's own ways to read, to write, and to write only where a question says that there is reason."""

    def __init__(
        self,
        read: Callable[..., Awaitable[Any]],
        write: Callable[..., Awaitable[Any]],
        write_if: Callable[..., Awaitable[Any]],
        clock: Clock,
    ) -> None:
        self._read = read
        self._write = write
        self._write_if = write_if
        self._clock = clock

    async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
        """See `Fleet`."""
        return bool(await self._write(_beat, worker, now, until))

    async def leave(self, worker: str) -> None:
        """See `Fleet`."""
        await self._write(_forget, [worker])

    async def workers(self, now: float) -> list[WorkerNote]:
        """See `Fleet`."""
        found: list[WorkerNote] = await self._read(_workers, now)
        return found

    async def bury(self, now: float) -> list[str]:
        """See `Fleet`."""
        buried: list[str] = await self._write_if(_dead, [], _bury, now, self._clock.monotonic())
        return buried

    async def holdings(self, worker: str, now: float) -> list[tuple[int, int]]:
        """See `Fleet`."""
        found: list[tuple[int, int]] = await self._read(_holdings, worker, now)
        return found

    async def share(self, worker: str, name: str, *, rate: float, held: float, demand: float, now: float) -> float:
        """See `Fleet`."""
        return float(await self._write(_share, worker, name, rate, held, demand, now))

    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        """See `Fleet`."""
        if offer is None:
            found: SharedToken | None = await self._read(_token, name, now)
        else:
            found = await self._write(_offer, name, now, offer, spacing)
        return found


def _beat(db: Db, worker: WorkerNote, now: float, until: float) -> bool:
    known = db.value("SELECT 1 FROM worker WHERE id = ?", worker.id) is not None
    db.run(
        "INSERT OR REPLACE INTO worker (id, host, pid, version, started_at, bindings, seen_at, until) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        worker.id,
        worker.host,
        worker.pid,
        worker.version,
        worker.started_at,
        dumps(list(worker.bindings)),
        now,
        until,
    )
    return known


def _forget(db: Db, workers: list[str]) -> None:
    ids = dumps(workers)
    db.run("DELETE FROM worker WHERE id IN (SELECT value FROM json_each(?))", ids)
    db.run("DELETE FROM share WHERE worker IN (SELECT value FROM json_each(?))", ids)


def _workers(db: Db, now: float) -> list[WorkerNote]:
    rows = db.rows(
        "w.id, w.host, w.pid, w.version, w.started_at, json(w.bindings), w.seen_at, w.until, "
        "(SELECT count(*) FROM chunk c WHERE c.owner = w.id AND NOT c.done AND c.ready_at > ?)",
        "worker w ORDER BY w.id",
        now,
    )
    return [
        WorkerNote(
            id=id,
            host=host,
            pid=pid,
            version=version,
            started_at=started_at,
            bindings=tuple(bindings),
            seen_at=seen_at,
            until=until,
            leases=leases,
        )
        for id, host, pid, version, started_at, bindings, seen_at, until, leases in rows
    ]


def _dead(db: Db, now: float, asked: float) -> list[str]:
    late = db.context.clock.monotonic() - asked
    rows = db.rows("id, seen_at, until", "worker ORDER BY id")
    return [id for id, seen_at, until in rows if forsaken(seen_at, until, now, late)]


def _bury(db: Db, now: float, asked: float) -> list[str]:
    dead = _dead(db, now, asked)
    db.run(
        "UPDATE chunk SET ready_at = ?1 WHERE owner IN (SELECT value FROM json_each(?2)) AND NOT done AND ready_at > ?1",
        now,
        dumps(dead),
    )
    _forget(db, dead)
    return dead


def _holdings(db: Db, worker: str, now: float) -> list[tuple[int, int]]:
    rows = db.rows("id, epoch", "chunk WHERE owner = ? AND NOT done AND ready_at > ?", worker, now)
    return [(id, epoch) for id, epoch in rows]


def _share(db: Db, worker: str, name: str, rate: float, held: float, demand: float, now: float) -> float:
    rows = db.rows(
        "w.id, w.seen_at, w.until, s.counted, s.demand",
        "worker w LEFT JOIN share s ON s.worker = w.id AND s.name = ?",
        name,
    )
    living = {id: part for id, seen_at, until, *part in rows if not outlived(seen_at, until, now)}
    if worker not in living:
        return 0.0
    others = (Part(*part) for id, part in living.items() if id != worker and part[0] is not None)
    given = grant(rate, demand, others)
    db.run(
        "INSERT OR REPLACE INTO share (name, worker, counted, demand) VALUES (?, ?, ?, ?)",
        name,
        worker,
        max(held, given),
        demand if math.isfinite(demand) else _MOST,
    )
    return given


def _token(db: Db, name: str, now: float) -> SharedToken | None:
    standing = _standing(db, name)
    return standing if standing is not None and standing.expires_at > now else None


def _standing(db: Db, name: str) -> SharedToken | None:
    rows = db.rows("text, made_at, expires_at", "token WHERE name = ?", name)
    return opened_token(db.seal(), name, *rows[0]) if rows else None


def _offer(db: Db, name: str, now: float, offer: SharedToken, spacing: float) -> SharedToken | None:
    if supersedes(_standing(db, name), now, spacing):
        db.run(
            "INSERT OR REPLACE INTO token (name, text, made_at, expires_at) VALUES (?, ?, ?, ?)",
            name,
            kept_token(db.seal(), name, offer),
            offer.made_at,
            offer.expires_at,
        )
    return _token(db, name, now)
