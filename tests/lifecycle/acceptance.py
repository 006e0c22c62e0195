"""The life of a delivery until it is leased: the directory of endpoints, acceptance and expansion."""

from __future__ import annotations

import random

from checks import ALL, APP, Checked, run
from choices import BINDINGS, LANES, REPEATS, TARGETS, USERS
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from promises import Promises
from worker import Gateway, Worker

from fanout.core.ids import notification_id
from fanout.core.model import Repeat, Target
from fanout.core.policy import Retention
from fanout.core.records import Submission
from fanout.plugin import StorageContext
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device

LEASE = 30.0
KEEP = Retention(notifications=400, idempotency_keys=100, quarantine=300, events=1e9)


class Accepting(Checked):
    """Subclasses open and close a storage. Everything is checked against `Promises` after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(T0)
        self.context = StorageContext(clock=self.clock, chunk=2, retention=KEEP)
        self.promises = Promises()
        self.gateway = Gateway()
        self.workers = {name: Worker(name, self.gateway) for name in ("w1", "w2", "last")}
        self.rng = random.Random(7)
        self.numbers = 0
        self.ids: list[int] = []
        self.steps = 0
        self.events = 0
        self.open()

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def reopen(self) -> None:
        """What a crash of the process does to a storage that outlives it."""

    # -- the directory

    @initialize()
    def begin(self) -> None:
        if self.promises.endpoints:
            return
        first = [("alice", str(i)) for i in range(6)] + [("bob", str(i)) for i in range(6, 10)]
        self._register([(user, token, "apns", ["x"]) for user, token in first] + [("carol", "a", "fcm", ["x"])])

    @initialize(
        audience=st.sampled_from([Target.user("alice"), Target.users(["alice", "bob"]), Target.all()]), repeat=REPEATS
    )
    def begin_sending(self, audience: Target, repeat: Repeat) -> None:
        if not self.promises.endpoints:
            self.begin()
        self._accept(audience, repeat=repeat)

    @rule(user=USERS, token=st.sampled_from("0379ai"), binding=BINDINGS, tags=st.sampled_from([["x"], []]))
    def register(self, user: str, token: str, binding: str, tags: list[str]) -> None:
        """A new device, one registered again, or an address taken over by another user."""
        self._register([(user, token, binding, tags)])

    def _register(self, entries: list[tuple[str, str, str, list[str]]]) -> None:
        wanted = [device(user, token, binding=binding, tags=tags) for user, token, binding, tags in entries]
        for endpoint, (user, token, binding, tags) in zip(
            run(self.storage.register(wanted, self.now)), entries, strict=True
        ):
            self.promises.registered(endpoint.id, user, binding, token, tags, self.now)
            if endpoint.id not in self.ids:
                self.ids.append(endpoint.id)

    def _named(self, number: int) -> int:
        """The id of the endpoint that was registered first, second, and so on; nobody's where there were not so
        many."""
        return self.ids[number - 1] if number <= len(self.ids) else 10**9 + number

    @rule(id=st.integers(1, 14), restore=st.booleans())
    def remove_or_restore(self, id: int, restore: bool) -> None:
        id = self._named(id)
        if restore:
            assert run(self.storage.restore_endpoints(APP, [id], self.now)) == self.promises.restored([id])
        else:
            assert run(self.storage.remove_endpoints(APP, [id], self.now)) == self.promises.removed([id], self.now)

    @rule(user=USERS)
    def erase(self, user: str) -> None:
        """A user to whom nothing was sent by name, at addresses of no other: what erasing ends besides, `storage_erase`
        holds storages to."""
        if self.promises.involved(user):
            return
        assert run(self.storage.erase_user(APP, user, self.now)) == self.promises.erased(user, self.now)

    # -- acceptance

    @precondition(lambda self: sum(not note["finished"] for note in self.promises.notes.values()) < 5)
    @rule(
        audience=TARGETS,
        delay=st.sampled_from([0, 0, 0, 0, 40]),
        ttl=st.sampled_from([20, 100, 5000, 5000]),
        lane=LANES,
        repeat=REPEATS,
        collapse=st.sampled_from([None, "c"]),
        key=st.sampled_from([None, None, None, "k"]),
    )
    def accept(
        self,
        audience: Target,
        delay: float,
        ttl: float,
        lane: int,
        repeat: Repeat,
        collapse: str | None,
        key: str | None,
    ) -> None:
        self._accept(audience, delay, ttl, lane, repeat, collapse, key)

    def _accept(
        self,
        audience: Target,
        delay: float = 0.0,
        ttl: float = 5000.0,
        lane: int = 1,
        repeat: Repeat = "prefer_delivery",
        collapse: str | None = None,
        key: str | None = None,
    ) -> None:
        now, p = self.now, self.promises
        self.numbers += 1
        if audience.kind == "endpoints":
            audience = Target.endpoints([self._named(number) for number in audience.ids])
        digest = repr(audience).encode()
        sub = Submission(
            id=notification_id(now, self.numbers.to_bytes(10, "big")), app=APP, target=audience, content=b'{"a":1}',
            lane=lane, repeat=repeat, accepted_at=now, due_at=now + delay, expires_at=now + delay + ttl,
            collapse_key=collapse, idempotency_key=key, digest=digest,
        )  # fmt: skip
        (put,) = run(self.storage.put([sub], now))
        known = p.keys.get(key) if key is not None else None
        if known is not None and now - known["at"] <= KEEP.idempotency_keys:
            if known["digest"] == digest:
                assert (put.id, put.replayed) == (known["id"], True), "one key, one notification"
            else:
                assert put.conflict == known["id"], "another request under the key conflicts"
            return
        assert put.id == sub.id
        assert not put.replayed
        if key is not None:
            p.keys[key] = {"id": sub.id, "digest": digest, "at": now}
        assert sorted(put.superseded) == sorted(p.accepted(sub, now)), "what is superseded is named"
        self._see_new(now)
        if p.notes[sub.id]["begun"] and not p.notes[sub.id]["expanding"]:
            assert put.total == len(p.deliveries[sub.id])

    @rule(binding=BINDINGS, ahead=st.integers(1, 5))
    def expand(self, binding: str, ahead: int) -> None:
        self._expand(binding, ahead)

    def _expand(self, binding: str, ahead: int) -> None:
        p = self.promises
        before = self._known()
        run(self.storage.expand(APP, binding, self.now, ahead=ahead))
        if binding in p.paused:
            assert self._known() == before, "nothing of a paused binding is expanded"
        else:
            for id, note in p.notes.items():
                if not note["begun"] and note["due_at"] <= self.now and not note["paused"]:
                    p.begun(id)
        self._see_new(self.now)

    def _known(self) -> list[int]:
        return [len(run(self.storage.deliveries(id, limit=ALL))) for id in self.promises.notes]

    def _see_new(self, now: float) -> None:
        """Deliveries that have come to be, and audiences that are complete."""
        p = self.promises
        for id, note in p.notes.items():
            for endpoint, _, _ in run(self.storage.deliveries(id, limit=ALL)):
                if endpoint not in p.deliveries[id]:
                    assert note["begun"], "nothing of a schedule is expanded"
                    assert not note["paused"], "nor of what is paused"
                    p.queued(id, endpoint, now if note["expanding"] else note["due_at"])
            if note["expanding"]:
                status = run(self.storage.status(id, now))
                assert status is not None
                note["expanding"] = status.total is None
            if note["begun"] and not note["expanding"] and not note["dropped"]:
                reached = p.deliveries[id].keys()
                assert note["must"] <= reached, "everybody who was registered, and stayed"
                assert reached <= note["may"], "and nobody else"
