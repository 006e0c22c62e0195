"""The auditor: joins the driver's promises, the database's rows, and the gateway's record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fanout.core.ids import delivery_id
from fanout.engine import Engine
from fanout.errors import NotFound
from fanout.testing.simulator.ledger import Entry, read_ledger

__all__ = ["Audit", "audit"]


@dataclass(slots=True)
class Audit:
    """The findings, after the last worker had drained.

    `lost`: accepted by `send`, and neither in a final state nor known at all. `false`: reported as accepted, and not in
    the ledger. `unasked`: in the ledger, and of no notification that was promised. `duplicates` are records of a
    delivery beyond its first; `worst` the most of them that repeat deliveries sent between the same two `edges`, so
    that one killed worker caused them all, and `rates` the deliveries per second between two edges.
    """

    notifications: int = 0
    deliveries: int = 0
    states: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    false: int = 0
    unasked: int = 0
    duplicates: int = 0
    worst: int = 0
    rates: list[float] = field(default_factory=list)

    def bound(self, in_flight: int, checkpoint: float) -> float:
        """Duplicates that one killed worker may cause: deliveries in flight, and those not yet settled."""
        return in_flight + max(self.rates, default=0.0) * checkpoint

    def __str__(self) -> str:
        return f"lost {self.lost}, false {self.false}, duplicates {self.duplicates} of {self.deliveries:,} deliveries"


async def audit(
    engine: Engine, promised: Iterable[str], ledger: Path, *, edges: Sequence[int] = (), unknown: bool = False
) -> Audit:
    """Join the ids that `send` returned, the states of their deliveries, and the ledger.

    `edges` are numbers of ledger records, such as there were at each kill. With `unknown`, the driver was killed too,
    so that the ledger may hold deliveries of a notification whose id it never learned.
    """
    found = Audit()
    entries = _entries(ledger)
    arrived = Counter(entry.delivery for entry in entries)
    known: set[str] = set()
    for id in promised:
        found.notifications += 1
        try:
            status = await engine.status(id)
        except NotFound:
            found.lost += 1
            continue
        if status.total is None:
            found.lost += 1
            continue
        found.deliveries += status.total
        seen = 0
        async for endpoint, state, _ in engine.deliveries(id):
            seen += 1
            delivery = delivery_id(id, endpoint)
            known.add(delivery)
            found.states[state] += 1
            found.lost += state == "pending"
            found.false += state == "accepted" and not arrived[delivery]
        found.lost += status.total - seen
    if not unknown:
        found.unasked = len(set(arrived) - known)
    found.duplicates = sum(count - 1 for count in arrived.values())
    _between(found, entries, [*edges, len(entries)])
    return found


def _entries(ledger: Path) -> list[Entry]:
    return list(read_ledger(ledger)) if ledger.exists() else []


def _between(found: Audit, entries: Sequence[Entry], edges: Sequence[int]) -> None:
    last: dict[str, int] = {}
    caused = [0] * len(edges)
    start = 0
    for number, edge in enumerate(edges):
        part = entries[start:edge]
        for entry in part:
            before = last.get(entry.delivery)
            if before is not None:
                caused[before] += 1
            last[entry.delivery] = number
        if len(part) > 100 and part[-1].at > part[0].at:
            found.rates.append(len(part) / (part[-1].at - part[0].at))
        start = edge
    found.worst = max(caused, default=0)
