"""The fleet facet: `ModelStorage.fleet`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fanout.core.fleet import Part, SharedToken, WorkerNote, grant, outlived, supersedes
from tests.oracle.tables import Piece, Tables, binding_tables

__all__ = ["ModelFleet"]


class ModelFleet:
    """`plugin.fleet.Fleet` over the tables."""

    def __init__(self, tables: Tables) -> None:
        self._t = tables

    async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
        """See `Fleet`."""
        known = worker.id in self._t.workers
        self._t.workers[worker.id] = replace(worker, seen_at=now, until=until, leases=0)
        return known

    async def leave(self, worker: str) -> None:
        """See `Fleet`."""
        self._t.workers.pop(worker, None)
        self._t.parts = {key: part for key, part in self._t.parts.items() if key[1] != worker}

    async def workers(self, now: float) -> list[WorkerNote]:
        """See `Fleet`."""
        held = Counter(piece.owner for piece in self._held(now))
        return [replace(note, leases=held[id]) for id, note in sorted(self._t.workers.items())]

    async def bury(self, now: float) -> list[str]:
        """See `Fleet`."""
        dead = sorted(id for id, note in self._t.workers.items() if outlived(note.seen_at, note.until, now))
        for piece in self._held(now) if dead else ():
            if piece.owner in dead:
                piece.ready_at = now
                binding_tables(self._t, piece.note.sub.app, piece.binding)[piece.note.sub.lane].push(piece)
                self._t.changes += 1
        for id in dead:
            await self.leave(id)
        return dead

    async def holdings(self, worker: str, now: float) -> list[tuple[int, int]]:
        """See `Fleet`."""
        return [(piece.id, piece.epoch) for piece in self._held(now) if piece.owner == worker]

    def _held(self, now: float) -> list[Piece]:
        return [piece for piece in self._t.pieces.values() if piece.open and piece.held(now)]

    async def share(self, worker: str, name: str, *, rate: float, held: float, demand: float, now: float) -> float:
        """See `Fleet`."""
        living = {id for id, note in self._t.workers.items() if not outlived(note.seen_at, note.until, now)}
        if worker not in living:
            return 0.0
        others = [part for (of, id), part in self._t.parts.items() if of == name and id != worker and id in living]
        given = grant(rate, demand, others)
        self._t.parts[name, worker] = Part(max(held, given), demand)
        return given

    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        """See `Fleet`."""
        standing = self._t.tokens.get(name)
        if offer is not None and supersedes(standing, now, spacing):
            standing = self._t.tokens[name] = offer
        return standing if standing is not None and standing.expires_at > now else None
