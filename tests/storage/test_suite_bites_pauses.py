"""The conformance suite finds what is broken: storages that break a law of pauses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.audit import Audit
from fanout.core.records import (
    Chunk,
    Expired,
    Status,
    Stored,
)
from tests.oracle.pause import unpause
from tests.oracle.store import ModelStorage
from tests.storage.bites import Broken, entering, must_be_caught

pytestmark = pytest.mark.anyio

BROKEN: Broken = {}
caught_by = entering(BROKEN)


@caught_by("notifications_pause")
class PausesNothing(ModelStorage):
    async def pause(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        return 0


@caught_by("notifications_pause")
class PausesInWordOnly(ModelStorage):
    """It says paused, and leases all the same."""

    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        notes = [note for note in self._t.notes.values() if unpause(self._t, note)]
        chunks = await super().lease(*arguments, **named)
        for note in notes:
            note.paused = True
        return chunks


@caught_by("notifications_pause")
class PausesForEver(ModelStorage):
    async def resume(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> None:
        return None


@caught_by("notifications_pause")
class ResumesEverythingAtOnce(ModelStorage):
    async def resume(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> None:
        await super().resume(app, id, now, audit=audit)
        for retry in self._t.notes[id].retries.values():
            retry.due_at = now


@caught_by("pauses_end")
class PausesPastTheEnd(ModelStorage):
    async def stopped(self, ids: Sequence[str]) -> dict[str, str]:
        paused = {id: "paused" for id in ids if (note := self._t.notes.get(id)) is not None and note.paused}
        return paused | await super().stopped(ids)


@caught_by("pauses_end")
class StopsTheClock(ModelStorage):
    async def expire(self, now: float, *, limit: int) -> Expired:
        paused = {id: note for id, note in self._t.unfinished.items() if note.paused}
        for id in paused:
            del self._t.unfinished[id]
        done = await super().expire(now, limit=limit)
        self._t.unfinished |= paused
        return done


@caught_by("pauses_end")
class BringsTheCancelledBack(ModelStorage):
    async def resume(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> None:
        await super().resume(app, id, now, audit=audit)
        self._t.notes[id].stopped = ""


@caught_by("notifications_pause")
class TellsNobodyOfAPause(ModelStorage):
    async def notification(self, id: str) -> Stored | None:
        stored = await super().notification(id)
        return stored if stored is None or stored.stopped != "paused" else replace(stored, stopped="")


@caught_by("what_is_paused_does_not_begin")
class PausedIsInTheWay(ModelStorage):
    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        paused = sum(
            1
            for note in self._t.unfinished.values()
            for piece in note.pieces.values()
            if note.paused and piece.open and piece.ready_at <= now
        )
        return await super().expand(app, binding, now, ahead=max(ahead - paused, 0))


@caught_by("bindings_pause")
class PausesEveryApp(ModelStorage):
    async def pause_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> int:
        await super().pause_binding("shop", binding, now, audit=audit)
        return await super().pause_binding(app, binding, now, audit=audit)


@caught_by("bindings_pause")
class ExpandsThePaused(ModelStorage):
    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        control = self._t.controls.pop((app, binding), None)
        made = await super().expand(app, binding, now, ahead=ahead)
        if control is not None:
            self._t.controls[app, binding] = control
        return made


@caught_by("waiting_has_one_reason")
class GateBeforePause(ModelStorage):
    async def status(self, id: str, now: float) -> Status | None:
        status = await super().status(id, now)
        gates = [note for note in await self.gates(now) if note.whole and note.app == "default"]
        if status is None or not gates or "paused" not in status.pending_by_reason:
            return status
        words = dict(status.pending_by_reason)
        return replace(status, pending_by_reason=words | {gates[0].waiting: words.pop("paused")})


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_storage_is_caught(broken: type[ModelStorage]) -> None:
    await must_be_caught(broken, BROKEN[broken])
