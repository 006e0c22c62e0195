"""The fleet facet: `Storage.fleet`. The times of heartbeats are stored, and compared, by the database's clock."""

from __future__ import annotations

import math

from fanout.core.fleet import Part, SharedToken, WorkerNote, forsaken, grant, outlived, supersedes
from fanout.storage.sql.db import Db, overwrite
from fanout.storage.sql.driver import Driver
from fanout.storage.tokens import kept_token, opened_token

__all__ = ["SqlFleet"]

_MOST = 1e300
"""The number for an infinite demand: JSON has no word for it."""


class SqlFleet:
    """`plugin.fleet.Fleet`. Heartbeats and burials that a loss of power undoes are written anew a second later; a
    granted part of a rate is durable."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
        """See `Fleet`."""
        return await self._driver.write(_beat, worker, now, until, durable=False, quiet=True)

    async def leave(self, worker: str) -> None:
        """See `Fleet`."""
        await self._driver.write(_forget, [worker], quiet=True)

    async def workers(self, now: float) -> list[WorkerNote]:
        """See `Fleet`."""
        return await self._driver.look(_workers, now)

    async def bury(self, now: float) -> list[str]:
        """See `Fleet`."""
        asked = self._driver.context.clock.monotonic()
        return await self._driver.write(_bury, now, asked, durable=False, probe=_dead, idle=[])

    async def holdings(self, worker: str, now: float) -> list[tuple[int, int]]:
        """See `Fleet`."""
        return await self._driver.look(_holdings, worker, now)

    async def share(self, worker: str, name: str, *, rate: float, held: float, demand: float, now: float) -> float:
        """See `Fleet`."""
        return await self._driver.write(_share, worker, name, rate, held, demand, now, quiet=True)

    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        """See `Fleet`."""
        if offer is None:
            return await self._driver.look(_token, name, now)
        return await self._driver.write(_offer, name, now, offer, spacing, quiet=True)


_ABOUT = ("id", "host", "pid", "version", "started_at")
"""The facts that a worker reports of itself at its start: columns, and fields of `WorkerNote`."""
_CHANGE = "UPDATE worker SET host = $2, pid = $3, version = $4, started_at = $5, bindings = $6, seen_at = $7, until = $8 WHERE id = $1"
_ENTER = (
    "INSERT INTO worker (id, host, pid, version, started_at, bindings, seen_at, until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
    f"ON CONFLICT (id) {overwrite('host', 'pid', 'version', 'started_at', 'bindings', 'seen_at', 'until')}"
)


async def _beat(db: Db, worker: WorkerNote, now: float, until: float) -> bool:
    about = (worker.id, worker.host, worker.pid, worker.version, worker.started_at, list(worker.bindings))
    changed = await db.run(_CHANGE, *about, now + db.skew, until + db.skew)
    if not changed:
        await db.run(_ENTER, *about, now + db.skew, until + db.skew)
    await db.read_clock()
    return bool(changed)


async def _forget(db: Db, workers: list[str]) -> None:
    await db.run(f"DELETE FROM worker WHERE id {db.among(1, 'text')}", workers)
    await db.run(f"DELETE FROM share WHERE worker {db.among(1, 'text')}", workers)


async def _workers(db: Db, now: float) -> list[WorkerNote]:
    skew = db.skew
    rows = await db.rows(
        f"SELECT w.{', w.'.join(_ABOUT)}, w.bindings, w.seen_at, w.until, "
        "(SELECT count(*) FROM chunk c WHERE c.owner = w.id AND NOT c.done AND c.ready_at > $1) FROM worker w ORDER BY w.id",
        now + skew,
    )
    return [
        WorkerNote(
            **dict(zip(_ABOUT, about, strict=True)),
            bindings=tuple(db.list_of(bindings)),
            seen_at=seen_at - skew,
            until=until - skew,
            leases=leases,
        )
        for *about, bindings, seen_at, until, leases in rows
    ]


async def _dead(db: Db, now: float, asked: float) -> list[str]:
    late = db.context.clock.monotonic() - asked
    rows = await db.rows("SELECT id, seen_at, until FROM worker ORDER BY id")
    return [id for id, seen_at, until in rows if forsaken(seen_at, until, now + db.skew, late)]


async def _bury(db: Db, now: float, asked: float) -> list[str]:
    # Locked before they are judged: a worker that beats at this moment is alive.
    late = await _dead(db, now, asked)
    await db.rows(f"SELECT id FROM worker WHERE id {db.among(1, 'text')}{db.hold('id')}", late)
    dead = await _dead(db, now, asked)
    await db.run(
        f"UPDATE chunk SET ready_at = $1 WHERE id IN (SELECT id FROM chunk WHERE owner {db.among(2, 'text')} AND NOT done "
        f"AND ready_at > $1{db.hold('id')})",
        now + db.skew,
        dead,
    )
    await _forget(db, dead)
    return dead


async def _holdings(db: Db, worker: str, now: float) -> list[tuple[int, int]]:
    rows = await db.rows(
        "SELECT id, epoch FROM chunk WHERE owner = $1 AND NOT done AND ready_at > $2", worker, now + db.skew
    )
    return [(id, epoch) for id, epoch in rows]


async def _share(db: Db, worker: str, name: str, rate: float, held: float, demand: float, now: float) -> float:
    await db.exclusive("name", name)
    rows = await db.rows(
        "SELECT w.id, w.seen_at, w.until, s.counted, s.demand FROM worker w LEFT JOIN share s ON s.worker = w.id AND s.name = $1",
        name,
    )
    living = {id: row for id, seen_at, until, *row in rows if not outlived(seen_at, until, now + db.skew)}
    if worker not in living:
        return 0.0
    others = (Part(*row) for id, row in living.items() if id != worker and row[0] is not None)
    given = grant(rate, demand, others)
    await db.run(
        "INSERT INTO share (name, worker, counted, demand) VALUES ($1, $2, $3, $4) "
        f"ON CONFLICT (name, worker) {overwrite('counted', 'demand')}",
        name,
        worker,
        max(held, given),
        demand if math.isfinite(demand) else _MOST,
    )
    return given


async def _token(db: Db, name: str, now: float) -> SharedToken | None:
    standing = await _standing(db, name)
    return standing if standing is not None and standing.expires_at > now else None


async def _standing(db: Db, name: str) -> SharedToken | None:
    row = await db.row("SELECT text, made_at, expires_at FROM token WHERE name = $1", name)
    return opened_token(await db.seal(), name, *row) if row is not None else None


async def _offer(db: Db, name: str, now: float, offer: SharedToken, spacing: float) -> SharedToken | None:
    await db.exclusive("name", name)
    if supersedes(await _standing(db, name), now, spacing):
        await db.run(
            "INSERT INTO token (name, text, made_at, expires_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) "
            f"{overwrite('text', 'made_at', 'expires_at')}",
            name,
            kept_token(await db.seal(), name, offer),
            offer.made_at,
            offer.expires_at,
        )
    return await _token(db, name, now)
