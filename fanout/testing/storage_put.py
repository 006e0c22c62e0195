"""The laws of acceptance: all or nothing, once per idempotency key, and every endpoint of the target exactly once."""

from __future__ import annotations

from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import Put, Release, Settled, Settlement
from fanout.core.states import Waiting
from fanout.plugin import Storage
from fanout.testing.storage_kit import (
    T0,
    Kit,
    device,
    done,
    known,
    law,
    lease_all,
    post,
    settle_all,
    standing,
    submission,
)


async def content_is_kept(kit: Kit) -> None:
    """The stored notification is read back as it was put."""
    async with kit.open() as storage:
        sub = submission(due_at=T0 + 5.125, lane=2)
        await post(storage, sub, T0)
        stored = known(await storage.notification(sub.id), "a notification that was put is known")
        law(stored.content == sub.content, "the content is kept byte for byte")
        envelope, times = (stored.id, stored.app, stored.lane, stored.repeat), (stored.accepted_at, stored.due_at)
        law(envelope == (sub.id, "default", 2, "prefer_delivery"), "so is the envelope")
        law((*times, stored.expires_at) == (T0, T0 + 5.125, T0 + 3605.125), "and its times")
        law(stored.stopped == "", "it is not stopped")
        law(await storage.notification("00000000-0000-7000-8000-000000000000") is None, "an unknown id is None")
        law(await storage.status("00000000-0000-7000-8000-000000000000", T0) is None, "an unknown id has no status")
        law(await storage.put([], T0) == [], "putting nothing is answered with nothing")


async def targets_become_chunks(kit: Kit) -> None:
    """An immediate target becomes chunks per binding, of bounded size, ids ascending, each endpoint once."""
    async with kit.open(chunk=10) as storage:
        devices = [device(f"u{i % 3}", str(i), binding="apns" if i % 2 else "fcm") for i in range(60)]
        entered = await storage.register(devices, T0)
        sub = submission(Target.users(["u0", "u2"]), lane=0)
        put = await post(storage, sub)
        law(put.total == 40, f"the total of an immediate target is known at once: {put}")
        seen: list[int] = []
        for binding in ("apns", "fcm"):
            chunks = await lease_all(storage, binding=binding, lane=0)
            law(all(len(chunk.ids) <= 10 for chunk in chunks), "no chunk is larger than the context says")
            law(len(chunks) == 2, "chunks are filled")
            for chunk in chunks:
                law(list(chunk.ids) == sorted(chunk.ids), "ids ascend within a chunk")
                law((chunk.notification, chunk.app, chunk.binding) == (sub.id, "default", binding), "a chunk is named")
                law((chunk.lane, chunk.attempt) == (0, 1), "a chunk knows its lane, and attempts count from 1")
                law(chunk.states == bytes(len(chunk.ids)), "all its deliveries are open")
                seen.extend(chunk.ids)
        expected = sorted(each.id for each in entered if each.user != "u1")
        law(sorted(seen) == expected, "every endpoint of the target once, and no others")
        law((await standing(storage, sub.id)).state == "running", "it is running")
        await storage.remove_endpoints("default", [entered[0].id], T0)
        some = [entered[0].id, entered[1].id, entered[1].id + 10**9]
        put = await post(storage, submission(Target.endpoints(some)))
        law(put.total == 1, "explicit endpoints that are not active, or unknown, are no deliveries")


async def nobody_is_done_at_once(kit: Kit) -> None:
    """A target without an endpoint is accepted, and finished with a total of 0."""
    async with kit.open() as storage:
        for target in (Target.user("nobody"), Target.topic("nothing"), Target.all(), Target.endpoints([77])):
            sub = submission(target)
            put = await post(storage, sub)
            law(put.total == 0, f"{target} has a total of 0 here")
            status = await standing(storage, sub.id)
            law((status.state, status.total, status.finished_at) == ("done", 0, T0), "it is done at once")
            event = (await storage.events())[-1]
            law(event.kind == "notification.finished", "and the log says that it has finished")
            law(event.data["notification"] == sub.id and event.data["total"] == 0, "the event names it, with its total")
        law(await storage.waiting("default", "apns", T0) == ([False] * 3, None), "nothing waits")


async def put_is_all_or_nothing(kit: Kit) -> None:
    """If one of a batch is refused or conflicts, nothing of the batch is stored."""
    async with kit.open() as storage:
        await storage.register([device("alice", "1"), device("bob", "2", binding="fcm", tags=["t"])], T0)
        for target in (Target.user("bob"), Target.topic("t"), Target.all()):
            good, bad = submission(), submission(target, refused=["fcm"], idempotency_key="k1")
            answers = await storage.put([good, bad], T0)
            law(answers == [Put(), Put(refused="fcm")], f"the answer says which was refused, and for what: {answers}")
            law(await storage.notification(good.id) is None, "nothing of a refused batch is stored")
        put = await post(storage, submission(refused=["fcm"], idempotency_key="k1"))
        law(put.total == 1, "a binding that the target does not touch refuses nothing; a refused key is not used up")
        good, bad = submission(), submission(idempotency_key="k1", digest=b"another")
        answers = await storage.put([good, bad], T0)
        law(answers == [Put(), Put(conflict=put.id)], f"the answer says what it conflicts with: {answers}")
        law(await storage.notification(good.id) is None, "nothing of a conflicting batch is stored")
        law(len(await lease_all(storage)) == 1, "and nothing of it can be leased")


async def idempotency_keys(kit: Kit) -> None:
    """One key, one notification; another request under it is a conflict; the key lasts as long as its retention."""
    async with kit.open(retention=Retention(idempotency_keys=100.0)) as storage:
        await storage.register([device("alice", "1")], T0)
        await post(storage, first := submission(idempotency_key="k", digest=b"same"))
        (replay,) = await storage.put([submission(idempotency_key="k", digest=b"same")], T0 + 99)
        law(replay == Put(id=first.id, total=1, replayed=True), f"the same request is answered alike: {replay}")
        (conflict,) = await storage.put([submission(idempotency_key="k", digest=b"else")], T0 + 99)
        law(conflict == Put(conflict=first.id), "another request under the key conflicts")
        put = await post(storage, submission(app="shop", idempotency_key="k", digest=b"else"))
        law(put.total == 0, "keys belong to an app")
        one, two = (submission(idempotency_key="j", digest=b"x") for _ in range(2))
        answers = await storage.put([one, two], T0)
        law(answers == [Put(id=one.id, total=1), Put(id=one.id, total=1, replayed=True)], "within one batch too")
        late = await post(storage, submission(idempotency_key="k", digest=b"else"), T0 + 101)
        law(late.total == 1, "past its retention a key is free, pruned or not")
        law(sum(len(chunk.ids) for chunk in await lease_all(storage, T0 + 101)) == 3, "three notifications came of it")


async def addresses_are_targets(kit: Kit) -> None:
    """Explicit addresses are delivered to once each, registered or not."""
    async with kit.open() as storage:
        (entered,) = await storage.register([device("alice", "1")], T0)
        addresses = tuple(device("", token).address for token in ("1", "2", "3", "2"))
        put = await post(storage, submission(Target("addresses", binding="apns", addresses=addresses)))
        law(put.total == 3, "each address once")
        (chunk,) = await lease_all(storage)
        rows = await storage.resolve(chunk.ids, T0)
        law(entered.id in chunk.ids, "a registered address is its endpoint")
        law({row.address for row in rows} == {"token-1", "token-2", "token-3"}, "the others are interned")
        bad = submission(Target("addresses", binding="apns", addresses=addresses), refused=["apns"])
        law((await storage.put([bad], T0))[0].refused == "apns", "addresses touch their binding")
        later = submission(Target("addresses", binding="apns", addresses=addresses), due_at=T0 + 50)
        await post(storage, later, T0)
        await storage.expand("default", "apns", T0 + 50, ahead=4)
        chunks = await lease_all(storage, T0 + 50)
        law(sum(len(c.ids) for c in chunks if c.notification == later.id) == 3, "scheduled ones are kept until due")
        handed_on = submission(Target("addresses", binding="apns", addresses=addresses[:1]), due_at=T0 + 90)
        await post(storage, handed_on, T0 + 60)
        await storage.register([device("bob", "1")], T0 + 70)
        await storage.expand("default", "apns", T0 + 90, ahead=4)
        status = await standing(storage, handed_on.id)
        law((status.state, status.total) == ("done", 0), f"an address handed on meanwhile gets nothing: {status}")


async def _expand_all(storage: Storage, now: float, *, ahead: int = 2, lane: int = 1) -> list[int]:
    """Expand, lease and settle until nothing waits; the endpoint ids in the order of delivery."""
    ids: list[int] = []
    for _ in range(1000):
        await storage.expand("default", "apns", now, ahead=ahead)
        chunks = await lease_all(storage, now, lane=lane)
        if not chunks:
            return ids
        law(len(chunks) <= ahead, f"no more than {ahead} chunks are made ahead of their lease: {len(chunks)}")
        for chunk in chunks:
            ids.extend(chunk.ids)
        await settle_all(storage, chunks, now)
    raise AssertionError("expansion ends")


async def broadcasts_stop_at_acceptance(kit: Kit) -> None:
    """A topic and a broadcast reach the endpoints registered at acceptance, each once; the total is known at the
    end."""
    async with kit.open(chunk=10) as storage:
        devices = [device(f"u{i}", str(i), tags=["odd" if i % 2 else "even"]) for i in range(95)]
        entered = await storage.register(devices, T0)
        await storage.intern("default", "apns", [device("", "interned").address], T0)
        late: list[int] = []
        for target, expected in (
            (Target.all(), [each.id for each in entered]),
            (Target.topic("even"), [each.id for each in entered[::2]]),
        ):
            sub = submission(target)
            put = await post(storage, sub)
            law(put.total is None, "the total of a topic is not known at acceptance")
            status = await standing(storage, sub.id)
            law((status.state, status.total) == ("expanding", None), "it is expanding")
            law((await storage.waiting("default", "apns", T0))[0] == [False, True, False], "expansion is waiting work")
            (newcomer,) = await storage.register([device("late", f"late-{target}", tags=["even", "odd"])], T0 + 1)
            ids = await _expand_all(storage, T0 + 1)
            law(sorted(ids) == sorted(expected + late), "every endpoint registered at acceptance, no other, each once")
            status = await standing(storage, sub.id)
            law((status.state, status.total) == ("done", len(ids)), f"the total is known at the end: {status}")
            law(status.counts["accepted"] == len(ids), "all of them accepted")
            late.append(newcomer.id)
        finished = [event for event in await storage.events() if event.kind == "notification.finished"]
        law(len(finished) == 2, "each has finished once")
        await storage.remove_endpoints("default", [entered[0].id], T0 + 2)
        await post(storage, sub := submission(Target.topic("even"), now=T0 + 2))
        await storage.remove_endpoints("default", [entered[2].id], T0 + 2)
        ids = await _expand_all(storage, T0 + 2)
        law(entered[2].id not in ids and entered[4].id in ids, "an endpoint that left before the cursor is passed over")


async def expansion_stays_ahead(kit: Kit) -> None:
    """Expansion makes no more than `ahead` unleased chunks; chunks parked for later are not counted."""
    async with kit.open(chunk=10) as storage:
        await storage.register([device(f"u{i}", str(i)) for i in range(100)], T0)
        await post(storage, submission(Target.all()))
        law(await storage.expand("default", "apns", T0, ahead=3) == 3, "expand makes `ahead` chunks")
        law(await storage.expand("default", "apns", T0, ahead=3) == 0, "and no more while they wait")
        await post(storage, submission(Target.all(), lane=0))
        law(await storage.expand("default", "apns", T0, ahead=3) == 3, "one lane's chunks do not hold up another's")
        chunks = await lease_all(storage, limit=10)
        law(await storage.expand("default", "apns", T0, ahead=3) == len(chunks) == 1, "a lease makes room")
        release = Settlement(chunks[0].id, chunks[0].epoch, release=Release(T0 + 60, Waiting.GATE.value))
        await storage.settle([release], T0)
        await lease_all(storage, limit=10)
        law(await storage.expand("default", "apns", T0, ahead=3) == 1, "a chunk behind a closed gate is not in the way")
        law(await storage.expand("default", "other", T0, ahead=3) == 0, "another binding has nothing to expand")


async def schedules_look_up_later(kit: Kit) -> None:
    """A later send goes to the endpoints that are registered then."""
    async with kit.open(chunk=10) as storage:
        early, *_ = await storage.register([device("alice", "1", tags=["t"]), device("bob", "2", tags=["t"])], T0)
        subs = [
            submission(target, due_at=T0 + 60)
            for target in (Target.user("alice"), Target.topic("t"), Target.endpoints([early.id]))
        ]
        for sub in subs:
            put = await post(storage, sub, T0)
            law(put.total is None, "the total of a scheduled notification is not known")
            status = await standing(storage, sub.id)
            law((status.state, status.total) == ("scheduled", None), f"it is scheduled: {status}")
        law(await storage.waiting("default", "apns", T0) == ([False] * 3, T0 + 60), "waiting says when it is due")
        law(await storage.expand("default", "apns", T0 + 59, ahead=4) == 0, "nothing is expanded before it is due")
        await storage.register([device("alice", "3", tags=["t"]), device("alice", "4", binding="fcm")], T0 + 30)
        law((await storage.waiting("default", "apns", T0 + 60))[0] == [False, True, False], "then it is work")
        await storage.expand("default", "apns", T0 + 60, ahead=4)
        await storage.expand("default", "fcm", T0 + 60, ahead=4)
        chunks = await lease_all(storage, T0 + 60) + await lease_all(storage, T0 + 60, binding="fcm")
        sizes = [sum(len(chunk.ids) for chunk in chunks if chunk.notification == sub.id) for sub in subs]
        law(sizes == [3, 3, 1], f"the audience is that of the due time: {sizes}")
        await settle_all(storage, chunks, T0 + 60)
        for sub, size in zip(subs, sizes, strict=True):
            status = await standing(storage, sub.id)
            law((status.state, status.total) == ("done", size), f"it finishes like any other: {status}")
        await post(storage, gone := submission(Target.user("nobody"), now=T0 + 60, due_at=T0 + 90))
        await storage.expand("default", "apns", T0 + 90, ahead=4)
        law((await standing(storage, gone.id)).state == "done", "no endpoint registered at the due time: done, total 0")
        dropped = submission(due_at=T0 + 200)
        await post(storage, dropped, T0 + 90)
        law(await storage.cancel("default", dropped.id, T0 + 91) == 0, "a scheduled notification can be cancelled")
        status = await standing(storage, dropped.id)
        law((status.state, status.total, status.finished_at) == ("cancelled", 0, T0 + 91), "and is finished then")
        law(await storage.waiting("default", "apns", T0 + 300) == ([False] * 3, None), "nothing waits any more")


async def superseding(kit: Kit) -> None:
    """A later notification with the same collapse key and target supersedes the unfinished one, and no other."""
    async with kit.open(chunk=10) as storage:
        await storage.register([device("alice", str(i)) for i in range(25)] + [device("bob", "b")], T0)
        await post(storage, first := submission(collapse_key="score"))
        (leased, *_) = await lease_all(storage, limit=10)
        other_key, other_target = submission(collapse_key="else"), submission(Target.user("bob"), collapse_key="score")
        law((await post(storage, other_key)).superseded == (), "another key supersedes nothing")
        law((await post(storage, other_target)).superseded == (), "another target supersedes nothing")
        law((await post(storage, submission(app="shop", collapse_key="score"))).superseded == (), "nor another app")
        second = submission(collapse_key="score")
        put = await post(storage, second)
        law(put.superseded == (first.id,), f"the receipt names what was superseded: {put}")
        status = await standing(storage, first.id)
        law(status.counts["superseded"] == 15 and status.counts["pending"] == 10, f"unleased deliveries end: {status}")
        law(await storage.stopped([first.id, second.id]) == {first.id: "superseded"}, "the worker can see it")
        half = Settlement(leased.id, leased.epoch, results={("accepted", ""): [0, 1]}, attempts=2)
        half.release = Release(T0 + 5, Waiting.GATE.value)
        law(await storage.settle([half], T0 + 1) == [Settled(False, first.id)], "giving the lease back ends the rest")
        status = await standing(storage, first.id)
        law((status.counts["accepted"], status.counts["superseded"]) == (2, 23), "sent deliveries count as sent")
        law(status.finished_at == T0 + 1, "and with that it has finished")
        chunks = await lease_all(storage, T0 + 1)
        law(first.id not in {chunk.notification for chunk in chunks}, "nothing of it is leased again")
        await storage.settle([done(chunk) for chunk in chunks], T0 + 2)
        third = await post(storage, submission(collapse_key="score"), T0 + 3)
        law(third.superseded == (), "a finished notification is not superseded")
