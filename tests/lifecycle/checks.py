"""What must hold after every step of a delivery's life: the storage says what was promised, and adds up."""

from __future__ import annotations

from array import array
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant
from promises import Promises
from worker import Gateway

from fanout.core.records import Backlog, Control
from fanout.core.states import FINAL_STATES
from fanout.plugin import Storage
from fanout.testing.clock import VirtualClock

__all__ = ["ALL", "APP", "Checked", "array_of", "run"]

T = TypeVar("T")

APP = "default"
ALL = 10**6
"""A limit that limits nothing."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """An inline storage answers without waiting: the coroutine ends at its first step."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        answer: T = stop.value
        return answer
    raise AssertionError("an inline storage waits for nothing")


def array_of(ids: list[int]) -> array[int]:
    return array("q", ids)


class Checked(RuleBasedStateMachine):
    """A storage, what was promised of it, and what has arrived."""

    storage: Storage
    clock: VirtualClock
    promises: Promises
    gateway: Gateway
    steps: int
    events: int

    @property
    def now(self) -> float:
        return self.clock.now()

    @invariant()
    def everything_is_as_promised(self) -> None:
        p, now = self.promises, self.now
        p.watch_audiences()
        p.finish()
        self.steps += 1
        low = high = size = 0
        due = []
        for i, (id, note) in enumerate(p.notes.items()):
            self._check(id, now, explain=i % 4 == self.steps % 4)
            if not note["finished"]:
                least = 1 if note["expanding"] or not note["begun"] else 0
                low += len(p.pending(id)) + least
                high += len(p.pending(id)) + least * (2 if note["expanding"] else 1)
                size += 7
                due.append(note["due_at"])
        backlog = run(self.storage.backlog(APP))
        assert low <= backlog.deliveries <= high, "the backlog adds up, with each expansion to come"
        assert backlog == Backlog(backlog.deliveries, size, min(due, default=None)), "bytes and age too"
        self._check_outstanding(backlog.deliveries)
        self._check_directory(now)
        self._check_controls()
        self._check_log()

    def _check(self, id: str, now: float, *, explain: bool) -> None:
        p = self.promises
        note, deliveries = p.notes[id], p.deliveries[id]
        rows = run(self.storage.deliveries(id, limit=ALL))
        assert [row[0] for row in rows] == sorted(deliveries), "every delivery once, and none lost"
        counts = {"pending": 0} | dict.fromkeys(FINAL_STATES, 0)
        for endpoint, state, reason in rows:
            d = deliveries[endpoint]
            counts[state] += 1
            if d["end"] is not None:
                assert (state, reason) == d["end"], "one final state, and never another"
                continue
            assert state == "pending", "nothing ends but by a settlement, an operator, time or poison"
            if reason != "paused" and d["back"] != (reason == "lane"):
                assert not d["leases"], "only what was never in hand is held back"
                d["back"] = reason == "lane"
                d["not_before"] = d["not_before"] if d["back"] else now
            assert reason in ("paused", "lane") or reason == ("ready" if d["chunk"] is not None else d["word"])
        status = run(self.storage.status(id, now))
        assert status is not None, "nothing is lost"
        assert dict(status.counts) == counts, "the counts add up"
        assert dict(status.pending_by_reason) == p.words(id, now), "each waits for one named reason"
        assert status.attempts == note["attempts"], "attempts are counted"
        assert status.total == (None if note["expanding"] or not note["begun"] else len(deliveries))
        assert (status.finished_at is not None) == note["finished"], "it has finished when nothing is left"
        if note["finished"]:
            assert note.setdefault("finished_at", status.finished_at) == status.finished_at, "it finishes once"
        assert status.state == self._state(note)
        for endpoint, d in deliveries.items():
            if d["end"] is not None and d["end"][0] == "accepted":
                assert (id, endpoint) in self.gateway.accepted, "what is called accepted has arrived"
        if explain:
            stored = run(self.storage.notification(id))
            assert stored is not None
            assert stored.stopped == (note["stopped"] or ("paused" if status.state == "paused" else ""))
            for endpoint in deliveries:
                self._check_story(id, endpoint)

    def _state(self, note: dict[str, Any]) -> str:
        if note["stopped"]:
            return "cancelled"
        if note["finished"]:
            return "done"
        if note["paused"]:
            return "paused"
        if not note["begun"]:
            return "scheduled"
        return "expanding" if note["expanding"] else "running"

    def _check_story(self, id: str, endpoint: int) -> None:
        """What `explain` says of a delivery agrees with its life."""
        d = self.promises.deliveries[id][endpoint]
        steps = run(self.storage.explain(id, endpoint))
        assert steps, "every delivery can be explained"
        what = [step.what for step in steps]
        assert what[0] == "accepted"
        assert what.count("accepted") == what.count("queued") == 1
        assert what.count("leased") == d["leases"], "every lease is told"
        assert what.count("taken over") >= d["crashes"], "and every lost one"
        assert ("ended" in what) == (d["end"] is not None)
        if d["end"] is not None:
            assert (steps[-1].state, steps[-1].reason) == d["end"], "the end is told last"

    def _check_outstanding(self, pending: int) -> None:
        p = self.promises
        outstanding = run(self.storage.outstanding(APP))
        assert sum(outstanding.values()) == pending, "what is outstanding adds up"
        leased = sum(len(lease["open"]) for lease in p.leases.values())
        assert outstanding.get("leased", 0) == leased, "what is leased is known"

    def _check_directory(self, now: float) -> None:
        p = self.promises
        ids = list(p.endpoints)
        rows = {row.id: row for row in run(self.storage.resolve(array_of(ids), now))}
        assert rows.keys() == p.endpoints.keys()
        for id, row in rows.items():
            assert (row.state, row.generation) == (p.endpoints[id]["state"], p.endpoints[id]["generation"])
            assert row.held_until == p.held_until(id, now), "an endpoint in back-off is held, and no other"
        for id, note in p.notes.items():
            if note["collapse"] is not None:
                expected = {each for each in ids if p.rivals(id, each)}
                assert run(self.storage.superseded(id, array_of(ids))) == expected

    def _check_controls(self) -> None:
        """What a worker is told of pauses and stops."""
        p = self.promises
        why = {
            id: note["stopped"] or ("paused" if self._state(note) == "paused" else "") for id, note in p.notes.items()
        }
        assert run(self.storage.stopped(list(why))) == {id: word for id, word in why.items() if word}
        controls = {binding: Control(binding in p.paused, n) for binding, n in p.nudges.items()}
        assert run(self.storage.controls()) == {(APP, binding): control for binding, control in controls.items()}

    def _check_log(self) -> None:
        for event in run(self.storage.events(after=self.events, limit=ALL)):
            assert event.id > self.events, "the cursor only grows"
            self.events = event.id
            if event.kind == "notification.finished":
                note = self.promises.notes[event.data["notification"]]
                assert note["finished"], "the end of a notification is logged when it is one"
                assert "logged" not in note, "and once"
                note["logged"] = True
        assert all("logged" in note for note in self.promises.notes.values() if note["finished"])
