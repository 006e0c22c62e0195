"""The conformance suite finds what is broken: each of these storages breaks one law, and is caught by a check that says
so."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.access import Grant
from fanout.core.alike import AlikeRows
from fanout.core.audit import Audit
from fanout.core.endpoint import Endpoint, Registration
from fanout.core.fleet import SharedToken, WorkerNote
from fanout.core.model import Target
from fanout.core.records import (
    Chunk,
    EndpointFilter,
    EndpointRow,
    Event,
    GateNote,
    LeaseRequest,
    Put,
    Settled,
    Settlement,
    Status,
    Submission,
)
from fanout.plugin import StorageContext
from fanout.testing.storage import CHECKS, check_storage, run_check
from tests.oracle.access import ModelAccess
from tests.oracle.fleet import ModelFleet
from tests.oracle.store import ModelStorage

pytestmark = pytest.mark.anyio


class Unfenced(ModelStorage):
    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        current = {piece.id: piece.epoch for piece in self._t.pieces.values()}
        return await super().settle([replace(s, epoch=current.get(s.chunk, s.epoch)) for s in settlements], now)


class NoTakeover(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        return [chunk for chunk in await super().lease(*arguments, **named) if chunk.epoch == 1]


class SharedLease(ModelStorage):
    async def lease(self, *arguments: Any, until: float, **named: Any) -> list[Chunk]:
        return await super().lease(*arguments, until=named["now"], **named)


class Greedy(ModelStorage):
    async def lease(self, *arguments: Any, limit: int, **named: Any) -> list[Chunk]:
        return await super().lease(*arguments, limit=10**9, **named)


class LeasesBefore(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        await asyncio.sleep(0)
        return await super().put(submissions, now)


class BringsAnothers(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        chunks = await super().lease(*arguments, **named)
        for chunk in chunks:
            chunk.rows = (await self.resolve(chunk.ids, named["now"]))[::-1]
        return chunks


class ColumnsOfOthers(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        chunks = await super().lease(*arguments, **named)
        for chunk in chunks:
            rows = await self.resolve(chunk.ids, named["now"])
            chunk.rows = AlikeRows(chunk.ids, ["t"] * len(rows), rows[0].kind, rows[0].group, lambda _: (0.0, 1))
        return chunks


class OneEndForAll(ModelStorage):
    async def extend(self, leases: Sequence[tuple[int, int, float]]) -> list[int]:
        return await super().extend([(chunk, epoch, leases[0][2]) for chunk, epoch, _ in leases])


class LeasesFirst(ModelStorage):
    async def put_and_lease(
        self, submissions: Sequence[Submission], leases: Sequence[LeaseRequest], now: float
    ) -> tuple[list[Put], list[list[Chunk]]]:
        _, leased = await super().put_and_lease([], leases, now)
        return await self.put(submissions, now), leased


class Hasty(ModelStorage):
    async def lease(self, *arguments: Any, now: float, **named: Any) -> list[Chunk]:
        return await super().lease(*arguments, now=now + 25, **named)


class ForgetsKeys(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        return await super().put([replace(sub, idempotency_key=None) for sub in submissions], now)


class SameKeySameThing(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        return await super().put([replace(sub, digest=b"") for sub in submissions], now)


class StoresTheGoodOnes(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        return [(await super(StoresTheGoodOnes, self).put([sub], now))[0] for sub in submissions]


class NeverCollapses(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        return await super().put([replace(sub, collapse_key=None) for sub in submissions], now)


class SendsAtOnce(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        return await super().put([replace(sub, due_at=min(sub.due_at, now)) for sub in submissions], now)


class ExpandsEverything(ModelStorage):
    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        return await super().expand(app, binding, now, ahead=10**9)


class WhoeverIsThere(ModelStorage):
    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        for note in self._t.notes.values():
            for expansion in note.expansions:
                expansion.high = 10**9
        return await super().expand(app, binding, now, ahead=ahead)


class BelievesEveryVerdict(ModelStorage):
    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        for settlement in settlements:
            settlement.changes = [
                replace(change, generation=self._t.directory.endpoints[change.endpoint].generation)
                for change in settlement.changes
            ]
        return await super().settle(settlements, now)


class KeepsTheOldUser(ModelStorage):
    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        held = {key[2]: id for key, id in self._t.directory.active.items()}
        users = self._t.directory.endpoints
        kept = [
            replace(new, user=users[held[new.address.digest]].user or new.user) if new.address.digest in held else new
            for new in registrations
        ]
        return await super().register(kept, now)


class ListsStrangers(ModelStorage):
    async def list_endpoints(self, which: EndpointFilter, *, after: int = 0, limit: int = 1000) -> list[Endpoint]:
        found = [e for e in self._t.directory.endpoints.values() if e.app == which.app and e.id > after]
        return found[:limit]


class ResolvesTheActive(ModelStorage):
    async def resolve(self, ids: array[int], now: float) -> list[EndpointRow]:
        return [row for row in await super().resolve(ids, now) if row.state == "active"]


class FinishesTwice(ModelStorage):
    async def events(self, *, after: int = 0, limit: int = 1000, audit: bool = False) -> list[Event]:
        events = await super().events(after=after, limit=limit, audit=audit)
        return events + [e for e in events if e.kind == "notification.finished"]


class Optimist(ModelStorage):
    async def status(self, id: str, now: float) -> Status | None:
        status = await super().status(id, now)
        if status is None:
            return None
        counts = dict(status.counts)
        counts["accepted"] += counts.pop("pending")
        return replace(status, counts=counts | {"pending": 0}, pending_by_reason={})


class CancelsNothing(ModelStorage):
    async def cancel(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        return 0


class CancelsForOthers(ModelStorage):
    async def cancel(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        note = self._t.notes.get(id)
        return await super().cancel(note.sub.app if note else app, id, now, audit=audit)


class NeverExpires(ModelStorage):
    async def expire(self, now: float, *, limit: int) -> int:
        return 0


class PrunesAtOnce(ModelStorage):
    async def prune(self, now: float, *, limit: int) -> int:
        return await super().prune(now + 50, limit=limit)


class PrunesAll(ModelStorage):
    async def prune(self, now: float, *, limit: int) -> int:
        return await super().prune(now, limit=10**9)


class SeesNoChange(ModelStorage):
    async def changes(self) -> int:
        return 7


class NothingWaits(ModelStorage):
    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        return [False, False, False], None


class CountsInterned(ModelStorage):
    async def count_endpoints(self, app: str, target: Target) -> dict[str, int]:
        counts: dict[str, int] = {}
        for endpoint in self._t.directory.endpoints.values():
            counts[endpoint.binding] = counts.get(endpoint.binding, 0) + 1
        return counts


class NamesTheAudited(ModelStorage):
    async def record(self, app: str, audit: Audit, now: float) -> None:
        await super().record(app, replace(audit, data={**audit.data, "user": audit.user}), now)


class MixesAuditAndEvents(ModelStorage):
    async def events(self, *, after: int = 0, limit: int = 1000, audit: bool = False) -> list[Event]:
        return [event for event in self._t.events if event.id > after][:limit]


class WholeSeconds(ModelStorage):
    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        return await super().register(registrations, float(int(now)))


BROKEN = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, ModelStorage) and value is not ModelStorage
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_storage_is_caught(broken: type[ModelStorage]) -> None:
    def make(context: StorageContext) -> ModelStorage:
        return broken("", context)

    with pytest.raises(AssertionError) as caught:
        await check_storage(make)
    assert len(str(caught.value)) > 20


async def test_every_check_catches_something() -> None:
    """No check is idle: a storage of which every answer is empty passes none."""

    class IdleFleet(ModelFleet):
        async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
            return False

        async def token(self, name: str, now: float, **offered: Any) -> SharedToken | None:
            return None

    class IdleAccess(ModelAccess):
        async def grants(self) -> list[Grant]:
            return []

    class Idle(ModelStorage):
        def __init__(self, location: str, context: StorageContext) -> None:
            super().__init__(location, context)
            self.fleet = IdleFleet(self._t)
            self.access = IdleAccess(self._t)

        async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
            await super().register(registrations, now)
            return []

        async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
            return [Put() for _ in submissions]

        async def gates(self, now: float) -> list[GateNote]:
            return []

        async def record(self, app: str, audit: Audit, now: float) -> None:
            pass

    needs_another = {
        "everything_survives_reopening",
        "grants_survive_reopening",
        "pauses_survive_reopening",
        "two_openers_share",
    }
    for name in CHECKS.keys() - needs_another:
        with pytest.raises(AssertionError, match=name):
            await run_check(name, lambda context: Idle("", context))
