"""The conformance suite finds what is broken in a fleet: each of these breaks one law, and is caught."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.fleet import SharedToken, WorkerNote
from fanout.plugin import StorageContext
from fanout.testing.storage import run_check
from fanout.testing.storage_kit import T0
from tests.oracle.fleet import ModelFleet
from tests.oracle.store import ModelStorage
from tests.oracle.tables import binding_tables

pytestmark = pytest.mark.anyio


class NeverKnown(ModelFleet):
    async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
        await super().beat(worker, now, until)
        return False


class KeepsTheLongest(ModelFleet):
    async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
        known = self._t.workers.get(worker.id)
        return await super().beat(worker, now, max(until, known.until if known else 0.0))


class CountsAllLeases(ModelFleet):
    async def workers(self, now: float) -> list[WorkerNote]:
        return [replace(each, leases=len(self._t.pieces)) for each in await super().workers(now)]


class HidesTheDead(ModelFleet):
    async def workers(self, now: float) -> list[WorkerNote]:
        return [each for each in await super().workers(now) if each.until > now]


class BuriesTheLiving(ModelFleet):
    async def bury(self, now: float) -> list[str]:
        return await super().bury(now + 5)


class BuriesNobody(ModelFleet):
    async def bury(self, now: float) -> list[str]:
        return []


class ForgetsLeases(ModelFleet):
    async def bury(self, now: float) -> list[str]:
        dead = [id for id, note in self._t.workers.items() if note.until <= now]
        for id in dead:
            await self.leave(id)
        return dead


class GivesBack(ModelFleet):
    """As if they had been given back: no crash is counted."""

    async def bury(self, now: float) -> list[str]:
        dead = await super().bury(now)
        for piece in self._t.pieces.values():
            if piece.owner in dead:
                piece.owner = ""
        return dead


class LeavesLeases(ModelFleet):
    async def leave(self, worker: str) -> None:
        for piece in self._t.pieces.values():
            if piece.owner == worker:
                piece.ready_at = T0
                binding_tables(self._t, piece.note.sub.app, piece.binding)[piece.note.sub.lane].push(piece)
        await super().leave(worker)


class WholeForEach(ModelFleet):
    async def share(self, worker: str, name: str, **more: Any) -> float:
        await super().share(worker, name, **more)
        return float(more["rate"])


class AtOnce(ModelFleet):
    async def share(self, worker: str, name: str, *, held: float, **more: Any) -> float:
        return await super().share(worker, name, held=0.0, **more)


class EqualParts(ModelFleet):
    async def share(self, worker: str, name: str, *, demand: float, **more: Any) -> float:
        return await super().share(worker, name, demand=math.inf, **more)


class OneRate(ModelFleet):
    async def share(self, worker: str, name: str, **more: Any) -> float:
        return await super().share(worker, "rate", **more)


class DeadKeepTheirs(ModelFleet):
    async def share(self, worker: str, name: str, **more: Any) -> float:
        workers = dict(self._t.workers)
        if worker in workers:
            self._t.workers = {id: replace(note, until=math.inf) for id, note in workers.items()}
        answer = await super().share(worker, name, **more)
        self._t.workers = workers
        return answer


class LatestToken(ModelFleet):
    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        return await super().token(name, now, offer=offer)


class FirstToken(ModelFleet):
    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        return await super().token(name, now, offer=offer, spacing=1e9)


class OwnToken(ModelFleet):
    async def token(
        self, name: str, now: float, *, offer: SharedToken | None = None, spacing: float = 0.0
    ) -> SharedToken | None:
        return offer or await super().token(name, now)


BROKEN: list[tuple[type[ModelFleet], str]] = [
    (NeverKnown, "workers_are_known"),
    (KeepsTheLongest, "workers_are_known"),
    (CountsAllLeases, "workers_are_known"),
    (HidesTheDead, "workers_are_known"),
    (BuriesTheLiving, "leases_of_the_dead_are_due"),
    (BuriesNobody, "leases_of_the_dead_are_due"),
    (ForgetsLeases, "leases_of_the_dead_are_due"),
    (GivesBack, "leases_of_the_dead_are_due"),
    (LeavesLeases, "leases_of_the_dead_are_due"),
    (WholeForEach, "a_rate_is_divided"),
    (AtOnce, "a_rate_is_divided"),
    (EqualParts, "a_rate_is_divided"),
    (OneRate, "a_rate_is_divided"),
    (DeadKeepTheirs, "a_rate_is_divided"),
    (LatestToken, "one_token_stands"),
    (FirstToken, "one_token_stands"),
    (OwnToken, "one_token_stands"),
]


def maker(fleet: type[ModelFleet]) -> Callable[[StorageContext], ModelStorage]:
    def make(context: StorageContext) -> ModelStorage:
        storage = ModelStorage("", context)
        storage.fleet = fleet(storage._t)
        return storage

    return make


@pytest.mark.parametrize(("fleet", "check"), BROKEN, ids=lambda each: getattr(each, "__name__", each))
async def test_what_is_broken_is_caught(fleet: type[ModelFleet], check: str) -> None:
    with pytest.raises(AssertionError, match=check):
        await run_check(check, maker(fleet))
    await run_check(check, maker(ModelFleet))


async def test_a_worker_that_forgets_its_fence_is_caught() -> None:
    class Unfenced(ModelFleet):
        async def beat(self, worker: WorkerNote, now: float, until: float) -> bool:
            await super().beat(worker, now, until)
            return True

    with pytest.raises(AssertionError, match="its next beat tells it"):
        await run_check("a_buried_worker_is_fenced", maker(Unfenced))
