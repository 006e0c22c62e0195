"""The fleet facet: `PostgresStorage.fleet`. The times of heartbeats are stored, and compared, by the database's clock."""

from __future__ import annotations

from fanout.core.fleet import Part, SharedToken, WorkerNote, forsaken, grant, outlived, supersedes
from fanout.plugin import Clock
from fanout.storage.postgres.db import CLOCK, Db
from fanout.storage.postgres.operations import Database
from fanout.storage.tokens import kept_token, opened_token

__all__ = ["PostgresFleet"]

_LOCK = "SELECT pg_advisory_xact_lock(1178685008, hashtext($1))"
"""Held while one rate is divided, or one token offered; the first number is one above that of `gates`."""


class PostgresFleet:
    """`plugin.fleet.Fleet`, by the storage's own ways to read and write.

    Beats and burials that a crash of the server undoes are said anew a second later; what was granted is not taken back by one.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
        """See `Fleet`."""
        return bool(await self._database.write(_beat, worker, now, until, durable=False, quiet=True))

    async def leave(self, worker: str) -> None:
        """See `Fleet`."""
        await self._database.write(_forget, [worker], quiet=True)

    async def workers(self, now: float) -> list[WorkerNote]:
        """See `Fleet`."""
        found: list[WorkerNote] = await self._database.look(_workers, now)
        return found

    async def bury(self, now: float) -> list[str]:
        """See `Fleet`."""
        asked = self._clock.monotonic()
        if not await self._database.look(_dead, now, asked):
            return []
        buried: list[str] = await self._database.write(_bury, now, asked, durable=False)
        return buried

    async def holdings(self, worker: str, now: float) -> list[tuple[int, int]]:
        """See `Fleet`."""
        found: list[tuple[int, int]] = await self._database.look(_holdings, worker, now)
        return found

    async def share(self, worker: str, name: str, *, rate: float, held: float, demand: float, now: float) -> float:
        """See `Fleet`."""
        arguments = (worker, name, rate, held, demand, now)
        return float(await self._database.write(_share, *arguments, quiet=True))

    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        """See `Fleet`."""
        found: SharedToken | None
        if offer is None:
            found = await self._database.look(_token, name, now)
        else:
            found = await self._database.write(_offer, name, now, offer, spacing, quiet=True)
        return found


async def _beat(db: Db, worker: WorkerNote, now: float, until: float) -> bool:
    before = db.context.clock.monotonic()
    # Of a row that was inserted no transaction has yet marked the end: its xmax is 0.
    known, clock = await db.row(
        "INSERT INTO worker (id, host, pid, version, started_at, bindings, seen_at, until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
        "ON CONFLICT (id) DO UPDATE SET host = excluded.host, pid = excluded.pid, version = excluded.version, "
        "started_at = excluded.started_at, bindings = excluded.bindings, seen_at = excluded.seen_at, until = excluded.until "
        f"RETURNING xmax <> 0, {CLOCK}",
        worker.id,
        worker.host,
        worker.pid,
        worker.version,
        worker.started_at,
        list(worker.bindings),
        now + db.skew,
        until + db.skew,
    )
    db.told(clock, before)
    return bool(known)


async def _forget(db: Db, workers: list[str]) -> None:
    await db.run("DELETE FROM worker WHERE id = ANY($1::text[])", workers)
    await db.run("DELETE FROM share WHERE worker = ANY($1::text[])", workers)


async def _workers(db: Db, now: float) -> list[WorkerNote]:
    skew = db.skew
    rows = await db.rows(
        "SELECT w.id, w.host, w.pid, w.version, w.started_at, w.bindings, w.seen_at, w.until, "
        "(SELECT count(*) FROM chunk c WHERE c.owner = w.id AND NOT c.done AND c.ready_at > $1) FROM worker w ORDER BY w.id",
        now + skew,
    )
    return [
        WorkerNote(
            id=id,
            host=host,
            pid=pid,
            version=version,
            started_at=started_at,
            bindings=tuple(bindings),
            seen_at=seen_at - skew,
            until=until - skew,
            leases=leases,
        )
        for id, host, pid, version, started_at, bindings, seen_at, until, leases in rows
    ]


async def _dead(db: Db, now: float, asked: float) -> list[str]:
    late = db.context.clock.monotonic() - asked
    rows = await db.rows("SELECT id, seen_at, until FROM worker ORDER BY id")
    return [id for id, seen_at, until in rows if forsaken(seen_at, until, now + db.skew, late)]


async def _bury(db: Db, now: float, asked: float) -> list[str]:
    # Locked before they are judged: one that beats at this moment is alive.
    await db.rows(
        "SELECT id FROM worker WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE", await _dead(db, now, asked)
    )
    dead = await _dead(db, now, asked)
    await db.run(
        "UPDATE chunk SET ready_at = $1 WHERE id IN (SELECT id FROM chunk WHERE owner = ANY($2::text[]) AND NOT done "
        "AND ready_at > $1 ORDER BY id FOR UPDATE)",
        now + db.skew,
        dead,
    )
    await _forget(db, dead)
    return dead


async def _holdings(db: Db, worker: str, now: float) -> list[tuple[int, int]]:
    ids, epochs = await db.row(
        "SELECT coalesce(array_agg(id), '{}'), coalesce(array_agg(epoch), '{}') FROM chunk "
        "WHERE owner = $1 AND NOT done AND ready_at > $2",
        worker,
        now + db.skew,
    )
    return list(zip(ids, epochs, strict=True))


async def _share(db: Db, worker: str, name: str, rate: float, held: float, demand: float, now: float) -> float:
    await db.value(_LOCK, name)
    rows = await db.rows(
        "SELECT w.id, w.seen_at, w.until, s.counted, s.demand FROM worker w LEFT JOIN share s ON s.worker = w.id AND s.name = $1",
        name,
    )
    living = {id: part for id, seen_at, until, *part in rows if not outlived(seen_at, until, now + db.skew)}
    if worker not in living:
        return 0.0
    others = (Part(*part) for id, part in living.items() if id != worker and part[0] is not None)
    given = grant(rate, demand, others)
    await db.run(
        "INSERT INTO share (name, worker, counted, demand) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT (name, worker) DO UPDATE SET counted = excluded.counted, demand = excluded.demand",
        name,
        worker,
        max(held, given),
        demand,
    )
    return given


async def _token(db: Db, name: str, now: float) -> SharedToken | None:
    standing = await _standing(db, name)
    return standing if standing is not None and standing.expires_at > now else None


async def _standing(db: Db, name: str) -> SharedToken | None:
    rows = await db.rows("SELECT text, made_at, expires_at FROM token WHERE name = $1", name)
    return opened_token(await db.seal(), name, *rows[0]) if rows else None


async def _offer(db: Db, name: str, now: float, offer: SharedToken, spacing: float) -> SharedToken | None:
    await db.value(_LOCK, name)
    if supersedes(await _standing(db, name), now, spacing):
        await db.run(
            "INSERT INTO token (name, text, made_at, expires_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO UPDATE SET "
            "text = excluded.text, made_at = excluded.made_at, expires_at = excluded.expires_at",
            name,
            kept_token(await db.seal(), name, offer),
            offer.made_at,
            offer.expires_at,
        )
    return await _token(db, name, now)
