"""The model and SQLite side by side under arbitrary histories: they answer alike, and the laws hold after every
step."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fanout.core.fleet import SharedToken, WorkerNote
from fanout.core.ids import notification_id
from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import (
    AddressMoved,
    Chunk,
    EndpointFilter,
    EndpointGone,
    GateNote,
    Release,
    RetryRow,
    Settlement,
    Status,
    Submission,
)
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN
from fanout.core.states import DOUBT, FINAL_STATES
from fanout.plugin import Storage, StorageContext
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device
from tests.oracle.store import ModelStorage
from tests.storage.histories import BINDINGS, FATES, NUMBERS, TAGS, TARGETS, TOKENS, USERS, WORKERS, run

MEMORY = "/dev/shm"
"""Where files cost no disk: the model is about what is stored, not whether it survives a power loss."""


class Storages(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(T0)
        keep = Retention(notifications=200, idempotency_keys=100, quarantine=150, events=1e9)
        self.context = StorageContext(clock=self.clock, chunk=2, retention=keep)
        self.folder = Path(tempfile.mkdtemp(prefix="fanout-model-", dir=MEMORY if os.path.isdir(MEMORY) else None))
        self.model: Storage = ModelStorage("", self.context)
        self.sqlite = self.opened()
        self.number = 0
        self.put_ids: list[str] = []
        self.leases: list[tuple[Chunk, int]] = []
        self.epochs: dict[int, int] = {}
        self.ended: dict[tuple[str, int], tuple[str, str]] = {}
        self.finished: set[str] = set()
        self.events = 0
        self.steps = 0
        self.held: dict[str, float] = {}

    def opened(self) -> SqliteStorage:
        return run(SqliteStorage(str(self.folder / "model.db"), self.context, offload=Inline).__aenter__())

    def teardown(self) -> None:
        run(self.sqlite.__aexit__())
        shutil.rmtree(self.folder)

    def both(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Ask both; they must answer alike."""
        expected = run(getattr(self.model, method)(*arguments, **named))
        answer = run(getattr(self.sqlite, method)(*arguments, **named))
        assert answer == expected, (method, arguments, named)
        return expected

    def both_fleets(self, method: str, *arguments: Any, **named: Any) -> Any:
        """The same of their fleets."""
        expected = run(getattr(self.model.fleet, method)(*arguments, **named))
        answer = run(getattr(self.sqlite.fleet, method)(*arguments, **named))
        assert answer == expected, (method, arguments, named)
        return expected

    @property
    def now(self) -> float:
        return self.clock.now()

    # -- the directory

    @initialize()
    def begin(self) -> None:
        many = [device("carol", str(i)) for i in range(10, 19)]
        self.both("register", [device("alice", "1", tags=["x"]), device("bob", "2", tags=["x", "y"]), *many], self.now)

    @rule(entries=st.lists(st.tuples(USERS, TOKENS, BINDINGS, TAGS), min_size=1, max_size=4), short=st.booleans())
    def register(self, entries: list[tuple[str, str, str, set[str]]], short: bool) -> None:
        until = self.now + 50 if short else None
        wanted = [device(u, t, binding=b, tags=sorted(tags), expires_at=until) for u, t, b, tags in entries]
        self.both("register", wanted, self.now)

    @rule(id=st.integers(1, 8), restore=st.booleans())
    def remove_or_restore(self, id: int, restore: bool) -> None:
        self.both("restore_endpoints" if restore else "remove_endpoints", "default", [id, id + 1], self.now)

    @rule(user=USERS)
    def erase(self, user: str) -> None:
        self.both("erase_user", "default", user, self.now)

    # -- the queue

    @rule(
        audiences=st.lists(TARGETS, min_size=1, max_size=3),
        delay=st.sampled_from([0, 0, 0, 20]),
        ttl=st.sampled_from([15, 1000]),
        lane=st.integers(0, 2),
        collapse=st.sampled_from([None, "c"]),
        key=st.sampled_from([None, None, "k", "l"]),
        refused=st.sampled_from([(), (), (), ("fcm",)]),
    )
    def put(
        self,
        audiences: list[Target],
        delay: float,
        ttl: float,
        lane: int,
        collapse: str | None,
        key: str | None,
        refused: tuple[str, ...],
    ) -> None:
        subs = []
        for target in audiences:
            self.number += 1
            subs.append(
                Submission(
                    id=notification_id(self.now, self.number.to_bytes(10, "big")),
                    app="default",
                    target=target,
                    content=b"{}",
                    lane=lane,
                    repeat="prefer_delivery",
                    accepted_at=self.now,
                    due_at=self.now + delay,
                    expires_at=self.now + delay + ttl,
                    collapse_key=collapse,
                    idempotency_key=key,
                    digest=str(target).encode(),
                    refused=frozenset(refused),
                )
            )
        answers = self.both("put", subs, self.now)
        for sub, answer in zip(subs, answers, strict=True):
            if answer.id == sub.id:
                self.put_ids.append(sub.id)

    @rule(binding=BINDINGS, ahead=st.integers(1, 3))
    def expand(self, binding: str, ahead: int) -> None:
        self.both("expand", "default", binding, self.now, ahead=ahead)

    @rule(binding=BINDINGS, lane=st.integers(0, 2), limit=st.integers(1, 12), worker=st.sampled_from(["w1", "w2"]))
    def lease(self, binding: str, lane: int, limit: int, worker: str) -> None:
        now = self.now
        arguments = (worker, "default", binding, lane)
        mine = run(self.model.lease(*arguments, limit=limit, now=now, until=now + 30))
        theirs = run(self.sqlite.lease(*arguments, limit=limit, now=now, until=now + 30))
        self.compare_leased(mine, theirs)

    def compare_leased(self, mine: list[Chunk], theirs: list[Chunk]) -> None:
        assert [shape(chunk) for chunk in theirs] == [shape(chunk) for chunk in mine]
        for chunk in theirs:
            assert chunk.epoch > self.epochs.get(chunk.id, 0), "epochs only grow"
            self.epochs[chunk.id] = chunk.epoch
        self.leases += [(chunk, other.id) for chunk, other in zip(mine, theirs, strict=True)]

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        fates=st.lists(FATES, min_size=3, max_size=3),
        back=st.sampled_from([None, None, 0, 20]),
        word=st.sampled_from(["gate", "limiter", "paused"]),
        empty=st.booleans(),
    )
    def settle(self, data: st.DataObject, fates: list[str], back: float | None, word: str, empty: bool) -> None:
        chunk, twin = data.draw(st.sampled_from(self.leases))
        generations = {row.id: row.generation for row in self.both_rows(chunk.ids)}
        codes = self.open_codes(chunk)
        known = list(codes)
        settlement = Settlement(chunk.id, chunk.epoch, attempts=len(known))
        for position in () if empty else known:
            fate, endpoint = fates[position], chunk.ids[position]
            if fate in ("retry", "held"):
                again = chunk.attempt + (fate == "retry")
                due_at = self.now + 5 * position + (endpoint % 3) * 40
                settlement.retries.append(RetryRow(position, due_at, again, "backoff", "busy", fate == "retry"))
            elif fate == "mark" and codes[position] != DOUBTFUL:
                settlement.marks.append(position)
            elif fate == "moved":
                to = device("", str(7 + position)).address
                settlement.changes.append(AddressMoved(endpoint, generations.get(endpoint, 0), self.now, to))
            elif fate == "gone":
                settlement.results.setdefault(("gone", "Unregistered"), []).append(position)
                settlement.changes.append(
                    EndpointGone(endpoint, generations.get(endpoint, 0), self.now, "Unregistered")
                )
            elif fate == "doubt" and codes[position] != MARKED:
                settlement.results.setdefault((DOUBT, ""), []).append(position)
            elif fate not in ("leave", "mark", "doubt"):
                settlement.results.setdefault((fate, "" if fate == "accepted" else "why"), []).append(position)
        if back is not None:
            settlement.release = Release(self.now + back, word, "why")
        (settled,) = run(self.model.settle([settlement], self.now))
        (answer,) = run(self.sqlite.settle([replace(settlement, chunk=twin)], self.now))
        assert answer == settled
        if settled.finished:
            assert settled.finished not in self.finished, "a notification finishes once"

    def both_rows(self, ids: array[int]) -> list[Any]:
        mine = sorted(run(self.model.resolve(ids, self.now)))
        assert sorted(run(self.sqlite.resolve(ids, self.now))) == mine
        return mine

    def open_codes(self, chunk: Chunk) -> dict[int, int]:
        """What its holder may settle, as the model sees it; after a takeover the old holder's guess does not matter."""
        piece = self.model._t.pieces.get(chunk.id)  # type: ignore[attr-defined]
        codes = enumerate(piece.states if piece is not None else b"")
        return {position: code for position, code in codes if code in (OPEN, MARKED, DOUBTFUL)}

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        chunk, twin = data.draw(st.sampled_from(self.leases))
        lost = run(self.model.extend([(chunk.id, chunk.epoch, self.now + 30)]))
        theirs = run(self.sqlite.extend([(twin, chunk.epoch, self.now + 30)]))
        assert len(lost) == len(theirs)

    @precondition(lambda self: self.put_ids)
    @rule(number=NUMBERS, what=st.sampled_from(["cancel", "pause", "pause", "resume"]))
    def operate(self, number: int, what: str) -> None:
        id = self.put_ids[number % len(self.put_ids)]
        if run(self.model.status(id, self.now)) is not None:
            self.both(what, "default", id, self.now)

    @rule(
        binding=BINDINGS, what=st.sampled_from(["pause_binding", "resume_binding", "resume_binding", "retry_binding"])
    )
    def operate_binding(self, binding: str, what: str) -> None:
        self.both(what, "default", binding, self.now)

    @rule(binding=BINDINGS, ago=st.sampled_from([-1, 1, 40]), limit=st.sampled_from([0, 1000]))
    def gate_opens(self, binding: str, ago: float, limit: int) -> None:
        self.both("bring_forward", "default", binding, self.now - ago, self.now, limit=limit)

    @rule(
        binding=BINDINGS,
        word=st.sampled_from(["", "gate", "breaker"]),
        scope=st.sampled_from(["group", "binding"]),
        seconds=st.sampled_from([5, 50]),
        alarm=st.booleans(),
        worker=st.sampled_from(["w1", "w2"]),
    )
    def post_gate(self, binding: str, word: str, scope: str, seconds: float, alarm: bool, worker: str) -> None:
        whole = scope == "binding"
        note = GateNote("default", binding, scope, "g", word, "why", self.now + seconds, alarm, whole)
        self.both("post_gates", worker, [note], self.now)

    @rule(binding=BINDINGS, lane=st.integers(0, 2))
    def crash_of_the_holder(self, binding: str, lane: int) -> None:
        """A worker takes all there is, marks the first of it that is suspected, and is lost."""
        before = len(self.leases)
        self.lease_all(binding, lane)
        for chunk, twin in self.leases[before:][:1]:
            codes = self.open_codes(chunk)
            settlement = Settlement(
                chunk.id, chunk.epoch, marks=[p for p in codes if codes[p] != DOUBTFUL][: chunk.part]
            )
            (settled,) = run(self.model.settle([settlement], self.now))
            assert run(self.sqlite.settle([replace(settlement, chunk=twin)], self.now)) == [settled]
        self.clock.advance(31)

    def lease_all(self, binding: str, lane: int) -> None:
        now = self.now
        arguments = ("w1", "default", binding, lane)
        mine = run(self.model.lease(*arguments, limit=1000, now=now, until=now + 30))
        theirs = run(self.sqlite.lease(*arguments, limit=1000, now=now, until=now + 30))
        self.compare_leased(mine, theirs)

    # -- the fleet

    @rule(worker=WORKERS, seconds=st.sampled_from([5.0, 50.0]))
    def beat(self, worker: str, seconds: float) -> None:
        note = WorkerNote(id=worker, host="h", pid=1, version="1", started_at=T0, bindings=("default/apns",))
        self.both_fleets("beat", note, self.now, self.now + seconds)

    @rule(worker=WORKERS, leaves=st.booleans())
    def bury_or_leave(self, worker: str, leaves: bool) -> None:
        if leaves:
            self.both_fleets("leave", worker)
            self.held.pop(worker, None)
            return
        for buried in self.both_fleets("bury", self.now):
            self.held.pop(buried, None)

    @rule(worker=WORKERS, demand=st.sampled_from([0.0, 1.0, 40.0, math.inf]))
    def share(self, worker: str, demand: float) -> None:
        alive = {each.id for each in run(self.model.fleet.workers(self.now)) if each.until > self.now}
        held = {id: part for id, part in self.held.items() if id in alive}  # who has not been heard of uses nothing
        given = self.both_fleets(
            "share", worker, "quota", rate=100.0, held=held.get(worker, 0.0), demand=demand, now=self.now
        )
        self.held = held | ({worker: given} if worker in alive else {})
        assert sum(self.held.values()) <= 100.0001

    @rule(name=st.sampled_from(["a", "b"]), offered=st.booleans(), spacing=st.sampled_from([0.0, 20.0]))
    def token(self, name: str, offered: bool, spacing: float) -> None:
        self.number += 1
        offer = SharedToken(f"token {self.number}", self.now, self.now + 100) if offered else None
        self.both_fleets("token", name, self.now, offer=offer, spacing=spacing)

    # -- time and trouble

    @rule(seconds=st.sampled_from([1.0, 10.0, 31.0, 120.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.sampled_from([2, 1000]))
    def expire(self, limit: int) -> None:
        self.both("expire", self.now, limit=limit)

    @rule(limit=st.sampled_from([3, 1000]))
    def prune(self, limit: int) -> None:
        self.both("prune", self.now, limit=limit)

    @rule()
    def crash(self) -> None:
        run(self.sqlite.__aexit__())
        self.sqlite = self.opened()

    # -- the laws

    @invariant()
    def both_say_the_same(self) -> None:
        for binding in ("apns", "fcm"):
            self.both("waiting", "default", binding, self.now)
        self.both("outstanding", None)
        self.both("controls")
        self.both("gates", self.now)
        self.both_fleets("workers", self.now)
        self.both("backlog", "default")
        self.both("stopped", self.put_ids)
        self.both("list_endpoints", EndpointFilter(state=None))
        self.both("list_endpoints", EndpointFilter(user="", state=None))
        self.both("count_endpoints", "default", Target.topic("x"))
        self.both("count_endpoints", "default", Target.all())

    @invariant()
    def sums_are_right_and_ends_are_final(self) -> None:
        for id in list(self.put_ids):
            status: Status | None = self.both("status", id, self.now)
            if status is None:
                assert id in self.finished, "only what has finished is pruned"
                self.put_ids.remove(id)
                continue
            total = sum(status.counts.values())
            assert status.total is None or status.total == total
            assert sum(status.pending_by_reason.values()) == status.counts["pending"]
            rows = self.both("deliveries", id, limit=10_000)
            self.both("notification", id)
            self.both("superseded", id, array("q", range(1, 20)))
            self.steps += 1
            for endpoint in [row[0] for row in rows][self.steps % 5 :: 5]:
                self.compare_stories(id, endpoint)
            if status.finished_at is None or len(rows) == total:
                assert len(rows) == len({row[0] for row in rows}) == total, "every delivery once"
            for endpoint, state, reason in rows:
                if state in FINAL_STATES:
                    assert self.ended.setdefault((id, endpoint), (state, reason)) == (state, reason), "an end is final"
                else:
                    assert (id, endpoint) not in self.ended, "nothing comes back from its end"

    def compare_stories(self, id: str, endpoint: int) -> None:
        mine, theirs = run(self.model.explain(id, endpoint)), run(self.sqlite.explain(id, endpoint))
        assert mine
        assert theirs
        # What was stored at one moment has an order only where it is one commit after another.
        assert sorted(map(repr, theirs)) == sorted(map(repr, mine))
        assert [step.at for step in theirs] == [step.at for step in mine]
        assert (theirs[0], theirs[-1].what == "ended") == (mine[0], mine[-1].what == "ended")

    @invariant()
    def finished_is_logged_once(self) -> None:
        mine = run(self.model.events(after=self.events, limit=10_000))
        theirs = run(self.sqlite.events(after=self.events, limit=10_000))
        # What one commit logs has no order among itself.
        content = [sorted(repr(replace(event, id=0)) for event in events) for events in (mine, theirs)]
        assert content[0] == content[1]
        for event in theirs:
            assert event.id > self.events, "the cursor only grows"
            self.events = event.id
            if event.kind == "notification.finished":
                id = event.data["notification"]
                assert id not in self.finished, "a notification finishes once"
                assert event.data["counts"]["pending"] == 0
                self.finished.add(id)


_numbers: dict[int, int] = {}


def shape(chunk: Chunk) -> tuple[Any, ...]:
    """What must be alike of a leased chunk: everything but its number, and the codes of what has ended in it."""
    still_open = [code == 0 for code in chunk.states]
    held = (chunk.attempt, chunk.epoch, chunk.part, list(chunk.ids), still_open)
    return (chunk.notification, chunk.binding, chunk.lane, *held)


@pytest.mark.timeout(3600)
def test_the_model_and_sqlite_answer_alike(request: pytest.FixtureRequest) -> None:
    run_state_machine_as_test(
        Storages,
        settings=settings(
            max_examples=200 if request.config.getoption("--soak") else 15,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
