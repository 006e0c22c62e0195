"""The conformance suite finds what is broken: storages that break a law of crashes, turns, gates or explanations."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.audit import Audit
from fanout.core.records import (
    Backlog,
    Chunk,
    Control,
    EndpointRow,
    GateNote,
    Put,
    Release,
    RetryRow,
    Settled,
    Settlement,
    Status,
    Step,
    Submission,
)
from fanout.core.states import Waiting
from tests.oracle.queue import held
from tests.oracle.store import ModelStorage
from tests.oracle.tables import Note, Piece
from tests.storage.bites import Broken, entering, must_be_caught

pytestmark = pytest.mark.anyio

BROKEN: Broken = {}
caught_by = entering(BROKEN)


def _of(storage: ModelStorage, settlement: Settlement) -> Piece | None:
    return held(storage._t, settlement.chunk, settlement.epoch)


@caught_by("bindings_pause")
class NeverNudges(ModelStorage):
    async def controls(self) -> dict[tuple[str, str], Control]:
        return {place: Control(control.paused) for place, control in (await super().controls()).items()}


@caught_by("waiting_has_one_reason")
class EverythingIsReady(ModelStorage):
    async def status(self, id: str, now: float) -> Status | None:
        status = await super().status(id, now)
        if status is None or "lane" not in status.pending_by_reason:
            return status
        words = dict(status.pending_by_reason)
        lane = words.pop("lane")
        return replace(status, pending_by_reason=words | {"ready": lane + words.get("ready", 0)})


@caught_by("gates_are_known")
class GatesForEver(ModelStorage):
    async def gates(self, now: float) -> list[GateNote]:
        return await super().gates(0.0)


@caught_by("gates_are_known")
class GatesOfOneWorker(ModelStorage):
    """Whoever did not close a gate cannot open it."""

    async def post_gates(self, worker: str, notes: Sequence[GateNote], now: float) -> None:
        mine = []
        for note in notes:
            posted = self._t.gates.get((note.app, note.binding, note.scope, note.name))
            if posted is None or posted.note.worker == worker:
                mine.append(note)
        await super().post_gates(worker, mine, now)


@caught_by("gates_are_known")
class AlarmsEachTime(ModelStorage):
    async def post_gates(self, worker: str, notes: Sequence[GateNote], now: float) -> None:
        for posted in self._t.gates.values():
            posted.parked = False
        await super().post_gates(worker, notes, now)


@caught_by("crashes_are_counted")
class SuspectsNobody(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        return [replace(chunk, part=0) for chunk in await super().lease(*arguments, **named)]


@caught_by("crashes_are_counted")
class SuspectsEverybody(ModelStorage):
    """A lease given back counts as a crash."""

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        for settlement in settlements:
            piece = _of(self, settlement)
            if piece is not None and settlement.release is not None:
                piece.crashes += 1
        return await super().settle(settlements, now)


@caught_by("crashes_are_counted")
class BlamesTheUnmarked(ModelStorage):
    async def lease(self, *arguments: Any, now: float, **named: Any) -> list[Chunk]:
        for piece in self._t.pieces.values():
            if piece.owner and piece.ready_at <= now and piece.part:
                piece.states = piece.states.replace(b"\x00", b"\xfd")
        return await super().lease(*arguments, now=now, **named)


@caught_by("suspects_stay_together")
class KeepsMarks(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        marked = {piece.id: piece.states for piece in self._t.pieces.values() if b"\xfd" in piece.states}
        chunks = await super().lease(*arguments, **named)
        return [replace(chunk, states=marked.get(chunk.id, chunk.states)) for chunk in chunks]


@caught_by("suspects_stay_together")
class NeverMarks(ModelStorage):
    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        return await super().settle([replace(settlement, marks=[]) for settlement in settlements], now)


@caught_by("suspects_stay_together")
class LeasesSuspectsAtOnce(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        chunks = await super().lease(*arguments, **named)
        return chunks + await super().lease(*arguments, **named)


@caught_by("poison_is_found")
class ForgivesPoison(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        for piece in self._t.pieces.values():
            piece.crashes = min(piece.crashes, 1)
        return await super().lease(*arguments, **named)


@caught_by("poison_is_found")
class CountsCrashesAsAttempts(ModelStorage):
    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        chunks = await super().lease(*arguments, **named)
        return [replace(chunk, attempt=chunk.attempt + (chunk.part > 0)) for chunk in chunks]


@caught_by("long_targets_take_turns")
class AllAtOnce(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        answers = await super().put(submissions, now)
        for (app, binding), lanes in self._t.lanes.items():
            while any(expansion.pieces for lane in lanes for _, expansion in lane.expansions):
                await super().expand(app, binding, now, ahead=10**6)
        return answers


@caught_by("long_targets_take_turns")
class NeverItsTurn(ModelStorage):
    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        lanes = self._t.lanes.get((app, binding), ())
        kept = [lane.expansions for lane in lanes]
        for lane in lanes:
            lane.expansions = [each for each in lane.expansions if not each[1].pieces]
        made = await super().expand(app, binding, now, ahead=ahead)
        for lane, expansions in zip(lanes, kept, strict=True):
            lane.expansions = expansions
        return made


@caught_by("long_targets_take_turns")
class TurnsByAge(ModelStorage):
    """What takes its turn is due since it was sent, and so goes before all that was sent meanwhile."""

    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        back = [piece for piece in self._t.pieces.values() if piece.back]
        made = await super().expand(app, binding, now, ahead=ahead)
        for piece in back:
            if not piece.back:
                piece.ready_at = piece.note.sub.due_at
                self._t.lanes[app, binding][piece.note.sub.lane].push(piece)
        return made


@caught_by("endpoints_are_held")
class HoldsForEver(ModelStorage):
    async def resolve(self, ids: array[int], now: float) -> list[EndpointRow]:
        return await super().resolve(ids, 0.0)


@caught_by("endpoints_are_held")
class HoldsForAnyRetry(ModelStorage):
    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        for settlement in settlements:
            settlement.retries = [RetryRow(*row[:5], True) for row in settlement.retries]
        return await super().settle(settlements, now)


@caught_by("later_ones_supersede")
class SupersedesBackwards(ModelStorage):
    async def superseded(self, id: str, ids: array[int]) -> set[int]:
        note = self._t.notes.get(id)
        if note is None:
            return set()
        row, note.row = note.row, 0
        found = await super().superseded(id, ids)
        note.row = row
        return found


@caught_by("later_ones_supersede")
class SupersedesForTheCancelled(ModelStorage):
    async def superseded(self, id: str, ids: array[int]) -> set[int]:
        stopped = {note: note.stopped for note in self._t.notes.values()}
        for note in stopped:
            note.stopped = ""
        found = await super().superseded(id, ids)
        for note, why in stopped.items():
            note.stopped = why
        return found


@caught_by("later_ones_supersede")
class SupersedesUnfinishedOnly(ModelStorage):
    async def superseded(self, id: str, ids: array[int]) -> set[int]:
        place = ("default", "k")
        kept: list[Note] = self._t.collapsible.get(place, [])
        self._t.collapsible[place] = [note for note in kept if note.finished_at is None]
        found = await super().superseded(id, ids)
        self._t.collapsible[place] = kept
        return found


@caught_by("backlog_is_counted")
class CountsWhatHasEnded(ModelStorage):
    async def backlog(self, app: str) -> Backlog:
        backlog = await super().backlog(app)
        total = sum(note.total + len(note.expansions) for note in self._t.unfinished.values() if note.sub.app == app)
        return replace(backlog, deliveries=total)


@caught_by("backlog_is_counted")
class CountsEveryApp(ModelStorage):
    async def backlog(self, app: str) -> Backlog:
        return await super().backlog("default")


@caught_by("erasing_forgets")
class KeepsTags(ModelStorage):
    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        tags = {each.id: each.tags for each in self._t.directory.endpoints.values() if each.user == user}
        count = await super().erase_user(app, user, now, audit=audit)
        for id, kept in tags.items():
            self._t.directory.endpoints[id] = replace(self._t.directory.endpoints[id], tags=kept)
        return count


@caught_by("erasing_forgets")
class ErasesTheActive(ModelStorage):
    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        users = self._t.directory.users
        former = [id for id in users.get((app, user), []) if self._t.directory.endpoints[id].state != "active"]
        if former:
            users[app, user] = [id for id in users[app, user] if id not in former]
        return await super().erase_user(app, user, now, audit=audit)


@caught_by("erasing_forgets")
class TellsWhomItForgot(ModelStorage):
    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        before = len(self._t.events)
        count = await super().erase_user(app, user, now, audit=audit)
        self._t.events[before:] = [replace(e, data={**e.data, "user": user}) for e in self._t.events[before:]]
        return count


@caught_by("addressed_are_found")
class NamesNoLists(ModelStorage):
    async def addressed(
        self, app: str, user: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[str], int | None]:
        ids, position = await super().addressed(app, user, after=after, limit=limit)
        return [id for id in ids if self._t.notes[id].target.kind != "users"], position


@caught_by("decisions_are_explained")
class ExplainsNothing(ModelStorage):
    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        steps = await super().explain(id, endpoint)
        return steps and steps[:2]


@caught_by("decisions_are_explained")
class ExplainsTheNeighbours(ModelStorage):
    """The steps of a chunk are told of all in it, also of who had ended or left by then."""

    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        note = self._t.notes.get(id)
        lines = [line for piece in note.pieces.values() for line in piece.trail] if note is not None else []
        states = [line.states for line in lines]
        for line in lines:
            line.states = bytes(len(line.states))
        steps = await super().explain(id, endpoint)
        for line, before in zip(lines, states, strict=True):
            line.states = before
        return steps


@caught_by("crashes_are_explained")
class ForgetsWhoWasLost(ModelStorage):
    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        steps = await super().explain(id, endpoint)
        return steps and [step for step in steps if step.what != "taken over"]


@caught_by("pauses_are_explained")
class KeepsTheWordPaused(ModelStorage):
    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        pieces = [(_of(self, settlement), settlement.release) for settlement in settlements]
        answers = await super().settle(settlements, now)
        for piece, release in pieces:
            if piece is not None and release == Release(now, Waiting.PAUSED.value):
                for line in piece.trail:
                    line.step = replace(line.step, waiting="paused" if line.step.what == "released" else "")
        return answers


@caught_by("bindings_are_retried")
class RetriesEverything(ModelStorage):
    async def retry_binding(self, app: str, binding: str, now: float) -> None:
        for piece in self._t.pieces.values():
            piece.waiting = "gate"
        await super().retry_binding(app, binding, now)


@caught_by("bindings_are_retried")
class OnlyNudges(ModelStorage):
    async def retry_binding(self, app: str, binding: str, now: float) -> None:
        known = self._t.controls.get((app, binding), Control())
        self._t.controls[app, binding] = replace(known, nudge=known.nudge + 1)


@caught_by("gates_open_for_what_waits")
class BringsForwardTheWorkOfClosedGates(ModelStorage):
    async def bring_forward(self, app: str, binding: str, before: float, now: float, *, limit: int) -> int:
        return await super().bring_forward(app, binding, now, now, limit=limit)


@caught_by("gates_open_for_what_waits")
class BringsNothingForward(ModelStorage):
    async def bring_forward(self, app: str, binding: str, before: float, now: float, *, limit: int) -> int:
        return 0


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_storage_is_caught(broken: type[ModelStorage]) -> None:
    await must_be_caught(broken, BROKEN[broken])
