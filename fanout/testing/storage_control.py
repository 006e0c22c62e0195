"""The laws of operators' requests: a pause holds and loses nothing, a resume lets go, and every waiting delivery has
one reason."""

from __future__ import annotations

from dataclasses import replace

from fanout.core.model import Target
from fanout.core.records import Control, GateNote, Release, RetryRow, Settled, Settlement
from fanout.core.states import Waiting
from fanout.errors import NotFound
from fanout.plugin import Storage
from fanout.testing.storage_kit import T0, Kit, device, done, law, lease_all, post, settle_all, standing, submission

_NOTHING = ([False] * 3, None)


async def notifications_pause(kit: Kit) -> None:
    """Nothing of a paused notification is leased; deliveries in hand may be settled, and those given back wait."""
    sub, other = submission(), submission(now=T0 + 1)
    async with kit.sent(30, sub, other, chunk=10) as (storage, _):
        one, two = await lease_all(storage, T0, limit=20)
        law(await storage.pause("default", sub.id, T0 + 1) == 2, "pause says how many chunks are still leased")
        status = await standing(storage, sub.id, T0 + 1)
        law(status.state == "paused", f"it is paused: {status}")
        law(dict(status.pending_by_reason) == {"ready": 20, "paused": 10}, f"unleased deliveries are paused: {status}")
        law(await storage.stopped([sub.id, other.id]) == {sub.id: "paused"}, "a worker can see it")
        stored = await storage.notification(sub.id)
        law(stored is not None and stored.stopped == "paused", "with the notification too")
        law(await storage.finished([sub.id]) == set(), "it is not finished")
        chunks = await lease_all(storage, T0 + 1)
        law({chunk.notification for chunk in chunks} == {other.id}, "nothing of it is leased, and all of the others")
        law(await storage.settle([done(chunk) for chunk in chunks], T0 + 1) != [], "which go on")

        part = Settlement(one.id, one.epoch, results={("accepted", ""): [0]}, attempts=2)
        part.retries = [RetryRow(1, T0 + 40, 2, Waiting.BACKOFF.value, "busy")]
        part.release = Release(T0 + 2, Waiting.PAUSED.value)
        law(await storage.settle([part], T0 + 2) == [Settled(False)], "its holder settles, and gives the lease back")
        status = await standing(storage, sub.id, T0 + 2)
        law(dict(status.pending_by_reason) == {"ready": 10, "paused": 19}, f"so is that, retries too: {status}")
        law(status.counts["accepted"] == 1, "sent deliveries count")
        law(dict(await storage.outstanding()) == {"leased": 10, "paused": 19}, "outstanding says so")
        words = [row[2] for row in await storage.deliveries(sub.id, state="pending")]
        law((words.count("ready"), words.count("paused")) == (10, 19), "and so does each delivery")
        law(await storage.waiting("default", "apns", T0 + 100) == _NOTHING, "no time makes paused work due")
        law(await lease_all(storage, T0 + 100) == [], "nor leased: no chunk, no retry, no lease that has run out")
        law(await storage.pause("default", sub.id, T0 + 100) == 0, "a lease that has run out is held by nobody")
        law((await storage.settle([done(two)], T0 + 101)) == [Settled(False)], "until it is taken over, none fences it")

        await storage.resume("default", sub.id, T0 + 20)
        law(await storage.stopped([sub.id]) == {}, "it is paused no more")
        status = await standing(storage, sub.id, T0 + 20)
        law(status.state == "running" and dict(status.pending_by_reason) == {"lane": 18, "backoff": 1}, f"{status}")
        law("paused" not in await storage.outstanding(), "nor outstanding as paused")
        law(await storage.waiting("default", "apns", T0 + 20) == ([False, True, False], None), "it is work again")
        chunks = await lease_all(storage, T0 + 20)
        law(sum(chunk.states.count(0) for chunk in chunks) == 18, "due deliveries are due")
        law(await lease_all(storage, T0 + 39) == [], "a retry is not due before its time")
        chunks += await lease_all(storage, T0 + 40)
        law([chunk.attempt for chunk in chunks][-1] == 2, "and then it is")
        ends = await settle_all(storage, chunks, T0 + 41)
        law(ends[-1] == Settled(False, sub.id), f"then all is done: {ends}")
        law((await standing(storage, sub.id)).counts["accepted"] == 30, "nothing was lost")


async def pauses_end(kit: Kit) -> None:
    """Pausing twice is pausing once; a cancel, an expiry and an end outweigh a pause; an unknown id is told."""
    async with kit.sent(20, chunk=10) as (storage, _):
        for method in (storage.pause, storage.resume):
            for app, id in (("default", "00000000-0000-7000-8000-000000000000"), ("shop", "")):
                try:
                    await method(app, id, T0)
                except NotFound:
                    continue
                raise AssertionError("pause and resume of an unknown notification raise NotFound")
        await post(storage, sub := submission())
        await storage.pause("default", sub.id, T0)
        await storage.pause("default", sub.id, T0)
        await storage.resume("default", sub.id, T0)
        law((await standing(storage, sub.id)).state == "running", "one resume lifts any number of pauses")
        await storage.resume("default", sub.id, T0)
        (leased, _) = await lease_all(storage)
        await storage.pause("default", sub.id, T0)
        law(await storage.cancel("default", sub.id, T0 + 1) == 2, "a paused notification can be cancelled")
        law(await storage.stopped([sub.id]) == {sub.id: "cancelled"}, "and then is cancelled")
        law((await standing(storage, sub.id)).state == "cancelled", "which status says")
        await storage.pause("default", sub.id, T0 + 1)
        law(await storage.stopped([sub.id]) == {sub.id: "cancelled"}, "a cancelled one cannot be paused")
        await storage.resume("default", sub.id, T0 + 1)
        law(await storage.stopped([sub.id]) == {sub.id: "cancelled"}, "nor brought back")
        back = Settlement(leased.id, leased.epoch, release=Release(T0 + 1, Waiting.PAUSED.value))
        await storage.settle([back], T0 + 1)
        law(await lease_all(storage, T0 + 30) == [], "deliveries of its lost holder are ended, not leased")
        status = await standing(storage, sub.id)
        law((status.counts["cancelled"], status.finished_at) == (20, T0 + 30), f"then it has finished: {status}")

        await post(storage, short := submission(ttl=20, now=T0 + 40))
        await storage.pause("default", short.id, T0 + 40)
        law(await storage.expire(T0 + 59, limit=100) == 0, "it does not expire before its time")
        law(await storage.expire(T0 + 60, limit=100) == 20, "a pause does not stop the clock")
        status = await standing(storage, short.id)
        law((status.state, status.counts["expired"]) == ("done", 20), f"and then it is done, not paused: {status}")
        law(await storage.stopped([short.id]) == {}, "a finished notification is not paused")
        law(await storage.pause("default", short.id, T0 + 61) == 0, "and cannot be")
        law((await standing(storage, short.id)).state == "done", "it stays done")

        await post(storage, last := submission(now=T0 + 70))
        chunks = await lease_all(storage, T0 + 70)
        await storage.pause("default", last.id, T0 + 70)
        ends = await settle_all(storage, chunks, T0 + 71)
        law(ends[-1] == Settled(False, last.id), "deliveries in hand may finish a paused notification")
        law(await storage.stopped([last.id]) == {}, "which is not paused then")


async def what_is_paused_does_not_begin(kit: Kit) -> None:
    """Paused work is not expanded or begun, and delays no other work."""
    async with kit.open(chunk=5) as storage:
        await storage.register([device(f"u{i}", str(i)) for i in range(20)], T0)
        wide, later = submission(Target.all()), submission(Target.user("u1"), due_at=T0 + 10)
        await post(storage, wide)
        await post(storage, later, T0)
        law(await storage.expand("default", "apns", T0, ahead=2) == 2, "two chunks are cut")
        await storage.pause("default", wide.id, T0)
        await storage.pause("default", later.id, T0)
        law(await storage.waiting("default", "apns", T0 + 10) == _NOTHING, "neither is work now, nor ever")
        law(await storage.expand("default", "apns", T0 + 10, ahead=9) == 0, "neither is expanded")
        status = await standing(storage, later.id, T0 + 10)
        law((status.state, status.total) == ("paused", None), f"a schedule can be paused: {status}")
        law(dict(await storage.outstanding()) == {"paused": 12}, "both are outstanding: as chunks, cursor and schedule")
        await post(storage, other := submission(Target.all(), now=T0 + 10))
        law(await storage.expand("default", "apns", T0 + 10, ahead=2) == 2, "a paused notification takes no turn")
        chunks = await lease_all(storage, T0 + 10)
        law({chunk.notification for chunk in chunks} == {other.id}, "and is not leased")
        await storage.resume("default", wide.id, T0 + 20)
        await storage.resume("default", later.id, T0 + 20)
        while await storage.expand("default", "apns", T0 + 20, ahead=9):
            chunks += await lease_all(storage, T0 + 20)
        chunks += await lease_all(storage, T0 + 20)
        await settle_all(storage, chunks, T0 + 21)
        counts = [(await standing(storage, sub.id)).counts["accepted"] for sub in (wide, later, other)]
        law(counts == [20, 1, 20], f"resumed, all of it is delivered: {counts}")


async def bindings_pause(kit: Kit) -> None:
    """A paused binding holds everything of one app's binding, and nothing else; workers see it, and see the requests to
    try again."""
    async with kit.open(chunk=5) as storage:
        await storage.register(
            [device("alice", f"{app}{binding}{i}", app=app, binding=binding, tags=["t"])
             for app in ("default", "shop") for binding in ("apns", "fcm") for i in range(10)], T0,
        )  # fmt: skip
        law(await storage.controls() == {}, "nothing was ever asked")
        sub, shop = submission(), submission(app="shop")
        await post(storage, sub)
        await post(storage, shop)
        (leased,) = await lease_all(storage, limit=5)
        law(await storage.pause_binding("default", "apns", T0) == 1, "it says how many chunks are still leased")
        law(await storage.pause_binding("default", "apns", T0 + 30) == 0, "under a running lease; it stays paused")
        law(await storage.controls() == {("default", "apns"): Control(paused=True)}, "controls say so")
        law(await lease_all(storage, T0 + 31) == [], "nothing of it is leased, nor taken over")
        law(len(await lease_all(storage, T0, binding="fcm")) == 2, "another binding is untouched")
        law(len(await lease_all(storage, T0, app="shop")) == 2, "and another app's of the same name")
        status = await standing(storage, sub.id, T0 + 1)
        law(status.state == "running", "the notification is not paused itself")
        law(dict(status.pending_by_reason) == {"ready": 15, "paused": 5}, f"but those on the binding are: {status}")
        status = await standing(storage, sub.id, T0 + 31)
        law(dict(status.pending_by_reason) == {"lane": 10, "paused": 10}, f"also after a lost lease: {status}")
        law(await storage.stopped([sub.id]) == {}, "nor is it stopped")
        law(dict(await storage.outstanding("default")) == {"leased": 15, "paused": 5}, "outstanding says so")
        await post(storage, submission(Target.topic("t"), now=T0 + 1))
        await post(storage, later := submission(Target.topic("t"), now=T0 + 1, due_at=T0 + 2))
        law(await storage.expand("default", "apns", T0 + 2, ahead=9) == 0, "nothing of it is expanded")
        law((await standing(storage, later.id)).state == "scheduled", "and no schedule begun by it")
        law(dict(await storage.outstanding("default"))["paused"] == 6, "its expansion is outstanding as paused")
        law(await storage.waiting("default", "apns", T0 + 100) == _NOTHING, "nothing of it can be leased or expanded")
        law((await storage.waiting("default", "fcm", T0 + 2))[0][1], "but of the other binding")
        law(await storage.expand("default", "fcm", T0 + 2, ahead=9) > 0, "which goes on")

        await storage.resume_binding("default", "apns", T0 + 3)
        law(await storage.controls() == {("default", "apns"): Control(nudge=1)}, "a resume counts as a nudge")
        await storage.resume_binding("default", "apns", T0 + 3)
        await storage.resume_binding("shop", "fcm", T0 + 3)
        controls = {("default", "apns"): Control(nudge=2), ("shop", "fcm"): Control(nudge=1)}
        law(await storage.controls() == controls, "with or without a pause")
        before = await storage.changes()
        await storage.pause_binding("default", "apns", T0 + 3)
        law(await storage.controls() == controls | {("default", "apns"): Control(True, 2)}, "a pause is no nudge")
        law(await storage.changes() != before, "a pause is noticed")
        await storage.resume_binding("default", "apns", T0 + 3)
        law(await storage.settle([done(leased)], T0 + 4) == [Settled(False)], "deliveries in hand are settled as ever")
        chunks = await lease_all(storage, T0 + 4)
        law([chunk.notification for chunk in chunks] == [sub.id], "due deliveries are due")


async def bindings_are_retried(kit: Kit) -> None:
    """A binding that is said to be mended is tried at once; a back-off, another binding and paused work stay as they
    are."""
    async with kit.open(chunk=4) as storage:
        await storage.register(
            [device("alice", str(i)) for i in range(20)] + [device("alice", str(i), binding="fcm") for i in range(4)],
            T0,
        )
        await post(storage, sub := submission())
        await storage.expand("default", "apns", T0, ahead=9)
        chunks = await lease_all(storage)
        words = ["gate", "breaker", "quota", "limiter"]
        settlements = [
            Settlement(chunk.id, chunk.epoch, release=Release(T0 + 90, word))
            for chunk, word in zip(chunks, words, strict=False)
        ]
        rows = [RetryRow(i, T0 + 80, 2, word, "x") for i, word in enumerate(("budget", "backoff", "quota"))]
        settlements.append(Settlement(chunks[4].id, chunks[4].epoch, retries=rows))
        (other,) = await lease_all(storage, binding="fcm")
        settlements.append(Settlement(other.id, other.epoch, release=Release(T0 + 90, "gate")))
        await storage.settle(settlements, T0 + 1)
        law(await lease_all(storage, T0 + 2) == [], "nothing is due")
        await storage.retry_binding("default", "apns", T0 + 2)
        law(await storage.controls() == {("default", "apns"): Control(nudge=1)}, "its workers are asked to try again")
        words_left = dict((await standing(storage, sub.id, T0 + 2)).pending_by_reason)
        law(words_left == {"lane": 14, "limiter": 4, "backoff": 1, "ready": 1, "gate": 4}, f"it is due: {words_left}")
        chunks = await lease_all(storage, T0 + 2)
        law(sum(chunk.states.count(0) for chunk in chunks) == 14, "and leased")
        back = Settlement(chunks[0].id, chunks[0].epoch, release=Release(T0 + 90, "gate"))
        await storage.settle([back], T0 + 3)
        await storage.pause_binding("default", "apns", T0 + 3)
        await storage.retry_binding("default", "apns", T0 + 3)
        law(await storage.controls() == {("default", "apns"): Control(True, 2)}, "tried again is not resumed")
        law(await lease_all(storage, T0 + 4) == [], "paused deliveries are not leased")
        await storage.resume_binding("default", "apns", T0 + 4)
        law(len(await lease_all(storage, T0 + 4)) == 1, "resuming is trying again, too")
        before = await standing(storage, sub.id, T0 + 4)
        await storage.probe()
        law(await standing(storage, sub.id, T0 + 4) == before, "a probe changes nothing")
        law(await lease_all(storage, T0 + 79.5, binding="fcm") == [], "another binding waits on")
        law([c.attempt for c in await lease_all(storage, T0 + 80) if len(c.ids) == 1] == [2], "so does a back-off")


async def gates_open_for_what_waits(kit: Kit) -> None:
    """The work that waits for a gate comes forward at its opening, in parts; other work stays."""
    async with kit.open(chunk=4) as storage:
        await storage.register([device("alice", str(i)) for i in range(20)], T0)
        await post(storage, submission())
        await storage.expand("default", "apns", T0, ahead=9)
        one, two, other, late, last = await lease_all(storage)
        rows = [RetryRow(i, T0 + 80 - i, 2, word, "x") for i, word in enumerate(("gate", "backoff", "gate"))]
        rows.append(RetryRow(3, T0 + 80, 2, "gate", "its own word", holds=True))
        await storage.settle([Settlement(last.id, last.epoch, retries=rows)], T0 + 1)
        waits = [(one, T0 + 90, "gate"), (two, T0 + 70, "gate"), (other, T0 + 90, "quota")]
        await storage.settle([Settlement(c.id, c.epoch, release=Release(at, word)) for c, at, word in waits], T0 + 1)
        await storage.settle([Settlement(late.id, late.epoch, release=Release(T0 + 90, "gate"))], T0 + 3)

        async def come(limit: int, binding: str = "apns") -> tuple[int, list[int]]:
            moved = await storage.bring_forward("default", binding, T0 + 2, T0 + 4, limit=limit)
            return moved, sorted(id for chunk in await lease_all(storage, T0 + 4, limit=9) for id in chunk.ids)

        law((await come(9, "fcm"))[0] == 0, "another binding's opening moves nothing")
        before = await storage.changes()
        moved, first = await come(1)
        law((moved, len(first)) == (2, 5), "a chunk and a retry come")
        law(await storage.changes() != before, "and every worker notices")
        moved, rest = await come(9)
        came = sorted([*first, *rest])
        law((moved, came) == (2, sorted([*one.ids, *two.ids, last.ids[0], last.ids[2]])), "then the others")
        law(
            await come(9) == (0, []),
            "back-off, a quota, an endpoint's own wait, and a gate that closed since, are not shortened",
        )
        law(await storage.controls() == {}, "no worker is asked to try again")
        law(len(await lease_all(storage, T0 + 90, limit=99)) > 1, "they come at their times")


async def waiting_has_one_reason(kit: Kit) -> None:
    """Paused outweighs a closed gate, that the chunk's own reason, and a delivery that only waits for its turn says
    so."""
    async with kit.sent(20, sub := submission(), chunk=10) as (storage, _):

        async def words(now: float) -> dict[str, int]:
            return dict((await standing(storage, sub.id, now)).pending_by_reason)

        law(await words(T0) == {"lane": 20}, "due deliveries without a lease wait for their turn")
        (one, two) = await lease_all(storage)
        law(await words(T0 + 29) == {"ready": 20}, "leased deliveries are ready")
        law(await words(T0 + 30) == {"lane": 20}, "a lease that has run out is held by nobody")
        back = Settlement(one.id, one.epoch, release=Release(T0 + 60, Waiting.LIMITER.value, "too fast"))
        rows = [RetryRow(0, T0 + 40, 2, "backoff", "busy"), RetryRow(1, T0 + 90, 1, "limiter", "")]
        await storage.settle([back, Settlement(two.id, two.epoch, retries=rows)], T0 + 1)
        law(await words(T0 + 1) == {"limiter": 11, "backoff": 1, "ready": 8}, "each its own reason")
        law(await words(T0 + 60) == {"lane": 19, "limiter": 1}, "past its time, it waits for its turn")
        gate = GateNote("default", "apns", "group", "g", Waiting.GATE.value, "refused", T0 + 100)
        await storage.post_gates("w1", [gate], T0 + 1)
        law("gate" not in await words(T0 + 1), "a gate of one group is nobody else's reason")
        whole = GateNote("default", "apns", "binding", "", Waiting.BREAKER.value, "401", T0 + 50, whole=True)
        others = [GateNote("default", "fcm", "binding", "", Waiting.GATE.value, "", T0 + 99, whole=True),
                  GateNote("shop", "apns", "binding", "", Waiting.GATE.value, "", T0 + 99, whole=True)]  # fmt: skip
        await storage.post_gates("w1", [whole, *others], T0 + 1)
        law(await words(T0 + 1) == {"breaker": 12, "ready": 8}, "a gate of the binding is for all but its holder")
        law(await words(T0 + 109) == {"breaker": 20}, "a minute longer than it says")
        law(await words(T0 + 110) == {"lane": 20}, "and no longer")
        longer = GateNote("default", "apns", "app", "", Waiting.QUOTA.value, "", T0 + 70, whole=True)
        await storage.post_gates("w2", [longer], T0 + 1)
        law(await words(T0 + 1) == {"quota": 12, "ready": 8}, "of two, the one that closes for longer")
        await storage.pause_binding("default", "apns", T0 + 1)
        law(await words(T0 + 1) == {"paused": 12, "ready": 8}, "a pause outweighs a gate")
        await storage.resume_binding("default", "apns", T0 + 1)
        opened = [GateNote("default", "apns", "app", "", ""), GateNote("default", "apns", "binding", "", "")]
        await storage.post_gates("w2", opened, T0 + 1)
        law(await words(T0 + 1) == {"limiter": 11, "backoff": 1, "ready": 8}, "opened, it is gone")
        law(dict(await storage.outstanding()) == {"limiter": 11, "backoff": 1, "leased": 8},
            "as it is stored")  # fmt: skip


async def gates_are_known(kit: Kit) -> None:
    """The last note of a gate stands until its time and a minute more; an alarm and its opening are in the log,
    once."""
    async with kit.open() as storage:

        async def kinds() -> list[str]:
            return [event.kind for event in await storage.events()]

        group = GateNote("default", "apns", "group", "g", "gate", "refused", T0 + 10)
        alarm = GateNote("default", "apns", "binding", "", "breaker", "401", T0 + 30, alarm=True, whole=True)
        before = await storage.changes()
        await storage.post_gates("w1", [group, alarm], T0)
        law(await storage.changes() != before, "a note is noticed")
        mine = [_by(alarm, "w1"), _by(group, "w1")]
        law(await storage.gates(T0) == mine, "gates answers with every note that stands, and its worker")
        law(await storage.gates(T0 + 69.5) == mine, "for a minute past its time")
        law(await storage.gates(T0 + 70) == mine[:1], "and no longer")
        (event,) = await storage.events()
        law((event.kind, event.app, event.at) == ("binding.parked", "default", T0), "an alarm is in the log")
        about = {"binding": "apns", "scope": "binding", "name": ""}
        what = about | {"waiting": "breaker", "reason": "401", "until": T0 + 30}
        law(dict(event.data) == what, f"with what it says: {event.data}")
        again = GateNote("default", "apns", "binding", "", "breaker", "403", T0 + 60, alarm=True, whole=True)
        await storage.post_gates("w2", [again], T0 + 30)
        law(await storage.gates(T0 + 30) == [_by(again, "w2"), _by(group, "w1")], "the last note stands, by anybody")
        law(await kinds() == ["binding.parked"], "an alarm that goes on is told once")
        calm = GateNote("default", "apns", "binding", "", "gate", "503", T0 + 90, whole=True)
        await storage.post_gates("w1", [calm], T0 + 60)
        opened = [GateNote("default", "apns", "binding", "", ""), GateNote("default", "apns", "group", "x", "")]
        await storage.post_gates("w1", opened, T0 + 61)
        law(await kinds() == ["binding.parked", "binding.opened"], "its opening is told, whatever came between")
        event = (await storage.events())[-1]
        law((event.app, event.at, dict(event.data)) == ("default", T0 + 61, about), f"with what it opens: {event}")
        law(await storage.gates(T0 + 61) == [_by(group, "w1")], "an opened gate is closed no more")
        await storage.post_gates("w1", opened, T0 + 62)
        law(len(await kinds()) == 2, "an opening of what is open is no event")
        await storage.post_gates("w1", [alarm], T0 + 62)
        law(len(await kinds()) == 3, "another alarm is another event")
        await storage.post_gates("w1", opened, T0 + 90)
        law(len(await kinds()) == 3, "a note that has run out is forgotten, and with it that it is to be opened")


def _by(note: GateNote, worker: str) -> GateNote:
    return replace(note, worker=worker)


async def pauses_survive_reopening(kit: Kit) -> None:
    """Pauses, nudges, gates, suspicion and turns are as they were after closing and opening again."""
    sub, bad = submission(lane=0), submission()
    async with kit.sent(12, sub, bad, chunk=2) as (storage, _):
        await storage.pause("default", sub.id, T0)
        await storage.resume_binding("default", "fcm", T0)
        await storage.post_gates("w1", [GateNote("default", "apns", "group", "g", "gate", "", T0 + 9)], T0)
        for now in (T0, T0 + 1, T0 + 2):
            (*_, chunk) = await lease_all(storage, now, lease=1)
        await storage.settle([Settlement(chunk.id, chunk.epoch, marks=[0])], T0 + 2)
        before = await _everything(storage, sub.id)
    async with kit.open_again(chunk=2) as storage:
        law(await _everything(storage, sub.id) == before, "everything is as it was")
        law(await lease_all(storage, T0 + 3, lane=0) == [], "paused deliveries stay paused")
        chunks = await lease_all(storage, T0 + 3, lease=1)
        suspected = sorted((chunk.part, chunk.states.count(0)) for chunk in chunks)
        law(suspected == [(1, 1), (1, 2), (1, 2), (1, 2)], f"the suspected and marked deliveries are: {suspected}")
        law(await storage.expand("default", "apns", T0 + 3, ahead=2) == 1, "chunks held back take their turn")


async def _everything(storage: Storage, id: str) -> list[object]:
    steps = await storage.explain(id, 1)
    return [await storage.status(id, T0), await storage.controls(), await storage.gates(T0), steps]
