"""The whole life of a delivery, in any order of events: a storage, two workers, operators, a clock that jumps, and what
was promised."""

from __future__ import annotations

import sys

from acceptance import KEEP, LEASE, Accepting
from checks import ALL, APP, run
from choices import BINDINGS, LANES, NUMBERS, OUTCOMES, WORKERS
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from worker import Hand, Worker, open_positions

from fanout.core.outcome import (
    ACCEPTED,
    Outcome,
)
from fanout.core.records import Backlog, EndpointRow, GateNote, RetryRow, Settlement
from fanout.core.states import Waiting

__all__ = ["Life"]


class Life(Accepting):
    """Everything is checked against `Promises` after every step. Subclasses open and close a storage."""

    # -- a worker

    @rule(name=WORKERS, binding=BINDINGS, lane=LANES)
    def lease(self, name: str, binding: str, lane: int) -> None:
        self._lease(name, binding, lane)

    def _lease(self, name: str, binding: str, lane: int) -> None:
        now = self.now
        chunks = run(self.storage.lease(name, APP, binding, lane, limit=ALL, now=now, until=now + LEASE))
        self.promises.leased(name, binding, lane, chunks, now, now + LEASE)
        for chunk in chunks:
            stored = run(self.storage.notification(chunk.notification))
            assert stored is not None
            left = open_positions(chunk)
            hand = Hand(chunk, stored.repeat, stored.expires_at, self.clock.monotonic() + LEASE, left)
            self.workers[name].hands[chunk.id] = hand

    @precondition(lambda self: any(worker.hands for worker in self.workers.values()))
    @rule(data=st.data(), outcomes=st.lists(OUTCOMES, min_size=1, max_size=4), settle=st.booleans())
    def send(self, data: st.DataObject, outcomes: list[Outcome], settle: bool) -> None:
        """One of the workers goes on with one of its chunks."""
        holders = [worker for worker in self.workers.values() if worker.hands]
        worker = data.draw(st.sampled_from(holders))
        chunk = data.draw(st.sampled_from(sorted(worker.hands)))
        for outcome in outcomes:
            if (hand := worker.next(chunk)) is not None and hand.chunk.id == chunk:
                self._send(worker, hand, outcome)
        if settle:
            self._settle(worker)

    @rule(
        name=WORKERS, outcomes=st.lists(OUTCOMES, min_size=1, max_size=6), settle=st.sampled_from([True, True, False])
    )
    def work(self, name: str, outcomes: list[Outcome], settle: bool) -> None:
        """A worker's whole turn: it expands, leases, sends what it holds and settles."""
        worker = self.workers[name]
        for binding in ("apns", "fcm"):
            self._expand(binding, 4)
            for lane in (0, 1):
                self._lease(name, binding, lane)
        for i in range(40):
            if (hand := worker.next()) is None:
                break
            self._send(worker, hand, outcomes[i % len(outcomes)])
        if settle:
            self._settle(worker)

    def _send(self, worker: Worker, hand: Hand, outcome: Outcome) -> None:
        now, p, id = self.now, self.promises, hand.chunk.notification
        if self.clock.monotonic() >= hand.until:
            del worker.hands[hand.chunk.id]  # another worker may hold it: nothing may be sent, or remembered
            return
        position = (hand.group or hand.left)[0]
        endpoint = hand.chunk.ids[position]
        why = run(self.storage.stopped([id])).get(id, "")
        if why in ("cancelled", "superseded"):
            hand.end(position, why, "")
            return
        control = run(self.storage.controls()).get((APP, hand.chunk.binding))
        if why == "paused" or (control is not None and control.paused):
            assert p.is_paused(id, hand.chunk.binding)
            hand.park(position, now, Waiting.PAUSED.value, "")
            return
        assert not p.is_paused(id, hand.chunk.binding), "what is paused can be seen"
        if now >= hand.expires_at:
            hand.end(position, "expired", "ttl")
            return
        row: EndpointRow | None = next(iter(run(self.storage.resolve(worker.endpoint(hand), now))), None)
        if row is None or row.state != "active":
            hand.end(position, "gone" if row is not None and row.state == "gone" else "cancelled", "endpoint")
            return
        if endpoint in run(self.storage.superseded(id, worker.endpoint(hand))):
            hand.end(position, "superseded", "")
            return
        if row.held_until:
            hand.retry(RetryRow(position, row.held_until, hand.chunk.attempt, Waiting.BACKOFF.value, "held"))
            return
        if (marks := worker.mark(hand)) is not None:
            if self._store([marks]):
                worker.hands.pop(hand.chunk.id)
            return
        worker.send(hand, row, outcome, now, self.rng)

    @rule(name=WORKERS)
    def settle(self, name: str) -> None:
        self._settle(self.workers[name])

    def _settle(self, worker: Worker) -> None:
        taken = worker.take()
        lost = self._store(taken)
        for settlement in taken:
            if settlement.chunk in lost:
                worker.hands.pop(settlement.chunk, None)
            else:
                self.gateway.remembered((settlement.chunk, settlement.epoch))

    def _store(self, settlements: list[Settlement]) -> list[int]:
        """Settle; the chunks whose lease was lost."""
        p, now = self.promises, self.now
        p.finish()
        answers = run(self.storage.settle(settlements, now))
        lost = []
        for settlement, answer in zip(settlements, answers, strict=True):
            assert answer.stale == (not p.current(settlement)), (
                "a settlement counts if its lease is current, and only then"
            )
            if answer.stale:
                lost.append(settlement.chunk)
            else:
                p.settled(settlement, now)
        told = [answer.finished for answer in answers if answer.finished]
        assert sorted(told) == sorted(p.finish()), "the settlement that ends a notification says so, once"
        return lost

    @rule(name=WORKERS)
    def extend(self, name: str) -> None:
        """A worker keeps its leases, or learns that it has lost them."""
        p, worker, until = self.promises, self.workers[name], self.now + LEASE
        leases = [(hand.chunk.id, hand.chunk.epoch) for hand in worker.hands.values()]
        current = {(chunk, lease["epoch"]) for chunk, lease in p.leases.items()}
        lost = run(self.storage.extend([(chunk, epoch, until) for chunk, epoch in leases]))
        assert lost == [chunk for chunk, epoch in leases if (chunk, epoch) not in current], "what is lost is told"
        for chunk, hand in list(worker.hands.items()):
            if chunk in lost:
                del worker.hands[chunk]
            else:
                p.leases[chunk]["until"] = until
                hand.until = self.clock.monotonic() + LEASE

    @rule(name=WORKERS, reopen=st.booleans())
    def crash(self, name: str, reopen: bool) -> None:
        """A worker forgets whatever it has not settled."""
        self.workers[name].crash()
        if reopen:
            for worker in self.workers.values():
                worker.crash()
            self.reopen()

    @rule(name=WORKERS, lane=LANES, times=st.sampled_from([1, 1, 2, 3, 6]), few=st.booleans())
    def killed(self, name: str, lane: int, times: int, few: bool) -> None:
        """A worker takes what is due, marks what it must, and dies of it; its leases run out. Whoever comes next does,
        too."""
        worker = self.workers[name]
        for _ in range(times):
            self._lease(name, "apns", lane)
            for hand in list(worker.hands.values())[: 1 if few else None]:
                able = self.clock.monotonic() < hand.until and worker.next(hand.chunk.id) is hand
                if able and (marks := worker.mark(hand)) is not None:
                    self._store([marks])
            worker.crash()
            self.clock.advance(LEASE + 1)

    @rule(
        name=WORKERS,
        lane=LANES,
        outcomes=st.lists(OUTCOMES, min_size=1, max_size=3),
        number=NUMBERS,
        meanwhile=st.sampled_from(["late", "clock", "cancel", "cancel", "pause", "pause binding", "remove"]),
    )
    def stalled(self, name: str, lane: int, outcomes: list[Outcome], number: int, meanwhile: str) -> None:
        """A worker sends, and is late to settle: another has its leases by then, or an operator has stopped what it
        had."""
        worker, other = self.workers[name], "w2" if name == "w1" else "w1"
        self._lease(name, "apns", lane)
        for hand in list(worker.hands.values()):
            for i in range(3):
                if worker.next(hand.chunk.id) is hand and self.clock.monotonic() < hand.until:
                    self._send(worker, hand, outcomes[i % len(outcomes)])
        if meanwhile in ("late", "clock"):
            (self.clock.step if meanwhile == "clock" else self.clock.advance)(LEASE + 5)
            self._lease(other, "apns", lane)
        elif meanwhile == "remove":
            self.remove_or_restore(number % 10 + 1, False)
        elif meanwhile == "pause binding":
            self._operate_binding("apns", "pause")
        elif self.promises.notes:
            self._operate(number, meanwhile)
        self._settle(worker)

    # -- operators

    @precondition(lambda self: self.promises.notes)
    @rule(number=NUMBERS, what=st.sampled_from(["cancel", "pause", "pause", "resume", "resume"]))
    def operate(self, number: int, what: str) -> None:
        self._operate(number, what)

    def _operate(self, number: int, what: str) -> None:
        p, now = self.promises, self.now
        ids = [id for id in p.notes if p.runs(id)] or sorted(p.notes)
        id = ids[number % len(ids)]
        note = p.notes[id]
        if what == "cancel":
            assert run(self.storage.cancel(APP, id, now)) == p.stopped(id, "cancelled", now), "cancel says who holds"
        elif what == "pause":
            assert run(self.storage.pause(APP, id, now)) == p.holders(now, note=id), "pause says who holds"
            note["paused"] = note["paused"] or p.runs(id)
        else:
            run(self.storage.resume(APP, id, now))
            note["paused"] = False

    @rule(binding=BINDINGS, what=st.sampled_from(["pause", "resume", "resume", "retry", "gate", "open"]))
    def operate_binding(self, binding: str, what: str) -> None:
        self._operate_binding(binding, what)

    def _operate_binding(self, binding: str, what: str) -> None:
        p, now, storage = self.promises, self.now, self.storage
        if what == "pause":
            p.paused.add(binding)
            p.nudges[binding] += 0
            assert run(storage.pause_binding(APP, binding, now)) == p.holders(now, binding=binding)
        elif what == "resume":
            p.paused.discard(binding)
            p.mended(binding, now)
            run(storage.resume_binding(APP, binding, now))
        elif what == "retry":
            p.mended(binding, now)
            run(storage.retry_binding(APP, binding, now))
        else:
            word = "breaker" if what == "gate" else ""
            run(storage.post_gates("w1", [GateNote(APP, binding, "binding", "", word, "", now + 20, whole=True)], now))
            p.gates = {b: gate for b, gate in p.gates.items() if b != binding and now < gate[1] + 60}
            if word:
                p.gates[binding] = (word, now + 20)

    # -- time

    @rule(seconds=st.sampled_from([1.0, 9.0, 26.0, 26.0, 31.0, 31.0, 130.0, 900.0]))
    def advance(self, seconds: float) -> None:
        """Time passes, and the janitor comes by."""
        self.clock.advance(seconds)
        self._expire()

    @rule(seconds=st.sampled_from([-25.0, -200.0, 100.0, 1000.0]))
    def jump(self, seconds: float) -> None:
        """The wall clock is set: forward, leases look as if they had run out, and their holders do not know."""
        self.clock.step(seconds)

    def _expire(self) -> None:
        expected = self.promises.expired(self.now)
        assert run(self.storage.expire(self.now, limit=ALL)) == expected

    @rule()
    def prune(self) -> None:
        run(self.storage.prune(self.now, limit=ALL))
        p, now = self.promises, self.now
        for id, note in list(p.notes.items()):
            if note["finished"] and note["finished_at"] < now - KEEP.notifications:
                assert run(self.storage.status(id, now)) is None, "its retention is over"
                del p.notes[id], p.deliveries[id]
        for key, known in list(p.keys.items()):
            if known["at"] < now - KEEP.idempotency_keys:
                del p.keys[key]
        for id, e in list(p.endpoints.items()):
            if e["state"] != "active" and e["state_at"] < now - KEEP.quarantine:
                del p.endpoints[id]

    # -- the end

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._drain()
        finally:
            self.close()

    def _drain(self) -> None:
        """When nobody interferes any more, everything ends."""
        p = self.promises
        for id in p.notes:
            run(self.storage.resume(APP, id, self.now))
            p.notes[id]["paused"] = False
        for binding in ("apns", "fcm"):
            self._operate_binding(binding, "resume")
        last = self.workers["last"]
        for _ in range(60):
            if all(note["finished"] for note in p.notes.values()):
                break
            for binding in ("apns", "fcm"):
                self._expand(binding, 4)
                for lane in (0, 1):
                    self._lease("last", binding, lane)
                    while (hand := last.next()) is not None:
                        self._send(last, hand, ACCEPTED)
            self._settle(last)
            self.everything_is_as_promised()
            self.clock.advance(LEASE + 1)
            self._expire()
        assert all(note["finished"] for note in p.notes.values()), "nothing is left waiting for ever"
        assert run(self.storage.outstanding()) == {}
        assert run(self.storage.backlog(APP)) == Backlog()
        for binding in ("apns", "fcm"):
            assert run(self.storage.waiting(APP, binding, self.now)) == ([False] * 3, None)
