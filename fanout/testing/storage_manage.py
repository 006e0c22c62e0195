"""The laws of watching and tidying: cancel, expire, prune, list, the log; and the view of a second opener."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable

from fanout.core.endpoint import EndpointState
from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import EndpointFilter, Release, RetryRow, Settled, Settlement
from fanout.core.states import DOUBT, Waiting
from fanout.errors import NotFound
from fanout.plugin import Storage
from fanout.testing.storage_kit import T0, Kit, device, done, law, lease_all, post, settle_all, standing, submission


async def cancelling(kit: Kit) -> None:
    """Cancelling ends unleased deliveries at once, and leased ones as they come back."""
    async with kit.sent(40, sub := submission(), chunk=10) as (storage, _):
        for app, id in (("shop", sub.id), ("default", "00000000-0000-7000-8000-000000000000")):
            try:
                await storage.cancel(app, id, T0)
            except NotFound:
                pass
            else:
                raise AssertionError("cancel raises NotFound for an unknown id and for another app's")
        one, two, three = await lease_all(storage, limit=30)
        retry = Settlement(one.id, one.epoch, results={("accepted", ""): [0]}, attempts=2)
        retry.retries = [RetryRow(1, T0 + 90, 2, Waiting.BACKOFF.value, "busy")]
        await storage.settle([retry], T0 + 1)
        law(await storage.cancel("default", sub.id, T0 + 2) == 3, "cancel says how many chunks are still held")
        status = await standing(storage, sub.id)
        law((status.state, status.finished_at) == ("cancelled", None), f"it is cancelled, not finished: {status}")
        law(status.counts["cancelled"] == 11, f"chunks and retries that nobody holds have ended: {status}")
        law(await storage.stopped([sub.id, "x"]) == {sub.id: "cancelled"}, "a worker can see it")
        stored = await storage.notification(sub.id)
        law(stored is not None and stored.stopped == "cancelled", "every reader of it can see that")
        last = Settlement(one.id, one.epoch, results={("accepted", ""): [2]}, attempts=2)
        last.retries = [RetryRow(3, T0 + 90, 2, Waiting.BACKOFF.value, "busy")]
        last.release = Release(T0 + 90, Waiting.GATE.value)
        await storage.settle([last], T0 + 3)
        status = await standing(storage, sub.id)
        law(status.counts["cancelled"] == 11 + 7, f"a retry or release after the cancel ends its deliveries: {status}")
        await storage.settle([Settlement(two.id, two.epoch, results={(DOUBT, ""): [0, 1]})], T0 + 3)
        law(await storage.settle([done(three)], T0 + 3) == [Settled(False)], "sent deliveries count as sent")
        law(await storage.cancel("default", sub.id, T0 + 4) == 1, "cancelling again tells what is held now")
        law(await lease_all(storage, T0 + 31, worker="w2") == [], "a chunk whose holder is lost is not leased again")
        status = await standing(storage, sub.id)
        law(status.counts["dead"] == 2, f"deliveries marked by the lost holder are dead, unknown: {status}")
        law((status.counts["accepted"], status.counts["cancelled"]) == (12, 26), f"all is accounted for: {status}")
        law(status.finished_at == T0 + 31, "and with that it has finished")
        law(await storage.cancel("default", sub.id, T0 + 40) == 0, "cancelling a finished one changes nothing")
        events = [event for event in await storage.events() if event.kind == "notification.finished"]
        law(len(events) == 1 and events[0].data["state"] == "cancelled", "the log has its end once")

        await post(storage, wide := submission(Target.all(), now=T0 + 50))
        await storage.expand("default", "apns", T0 + 50, ahead=1)
        (leased,) = await lease_all(storage, T0 + 50)
        law(await storage.cancel("default", wide.id, T0 + 80) == 0, "a lease that has run out holds nothing")
        status = await standing(storage, wide.id)
        law((status.total, status.counts["cancelled"]) == (10, 10), f"unexpanded endpoints have no delivery: {status}")
        law(await storage.settle([done(leased)], T0 + 81) == [Settled(True)], "its former holder settles nothing")
        law(await storage.expand("default", "apns", T0 + 81, ahead=9) == 0, "a cancelled broadcast expands no further")
        await post(storage, finished := submission(now=T0 + 90))
        await settle_all(storage, await lease_all(storage, T0 + 90), T0 + 90)
        law(await storage.cancel("default", finished.id, T0 + 91) == 0, "a done notification stays done")
        law((await standing(storage, finished.id)).state == "done", "and is not called cancelled")


async def expiring(kit: Kit) -> None:
    """Past its time, waiting deliveries end as expired; leased ones are their holder's to end; endpoints expire too."""
    sub, fresh = submission(ttl=20), submission(ttl=2000)
    async with kit.sent(30, sub, fresh, chunk=10) as (storage, _):
        (leased, *_) = await lease_all(storage, limit=10)
        part = Settlement(leased.id, leased.epoch, retries=[RetryRow(0, T0 + 99, 2, Waiting.BACKOFF.value, "busy")])
        await storage.settle([part], T0 + 1)
        law(await storage.expire(T0 + 19.5, limit=1000) == 0, "nothing expires before its time")
        ended = 0
        for _ in range(10):
            step = await storage.expire(T0 + 20, limit=5)
            ended += step
            if not step:
                break
            law(step <= 15, f"one call ends about as many as its limit says, to the chunk: {step}")
        law(ended == 21, f"all that waits expires, retries too: {ended}")
        status = await standing(storage, sub.id)
        law(dict(status.reasons["expired"]) == {"ttl": 21}, f"as expired, for ttl: {status}")
        law(status.counts["pending"] == 9, "leased deliveries are left to their holder")
        law((await standing(storage, fresh.id)).counts["pending"] == 30, "another notification is untouched")
        rest = Settlement(leased.id, leased.epoch, results={("expired", "late"): list(range(1, 10))})
        ends = await storage.settle([rest], T0 + 21)
        law(ends == [Settled(False, sub.id)], "the holder's settlement finishes it")

        await post(storage, wide := submission(Target.all(), ttl=20, now=T0 + 30))
        await storage.expire(T0 + 60, limit=1000)
        status = await standing(storage, wide.id)
        law((status.state, status.total) == ("done", 0), f"an expansion that never began ends with nothing: {status}")
        await post(storage, lost := submission(ttl=20, now=T0 + 70, lane=0))
        await lease_all(storage, T0 + 70, lane=0, lease=5)
        await storage.expire(T0 + 90, limit=1000)
        status = await standing(storage, lost.id)
        law((status.state, status.counts["expired"]) == ("done", 30), f"a lost holder's chunks expire: {status}")

        (short,) = await storage.register([device("carol", "c", tags=["t"], expires_at=T0 + 100)], T0)
        law(await storage.expire(T0 + 99, limit=10) == 0, "an endpoint is active until its time")
        law(await storage.expire(T0 + 100, limit=10) == 1, "then it counts among the expired")
        after = await storage.get_endpoint("default", short.id)
        law(after is not None and after.state is EndpointState.EXPIRED, "and its state says so")
        law(await storage.count_endpoints("default", Target.topic("t")) == {}, "it is no target any more")
        law(await storage.restore_endpoints("default", [short.id], T0 + 101) == 1, "it can be restored")
        law(await storage.expire(T0 + 101, limit=10) == 0, "and does not expire again at once")


async def pruning(kit: Kit) -> None:
    """Retention is kept to the second, deletion is bounded, and ids are never used again."""
    keep = Retention(notifications=100, idempotency_keys=200, quarantine=300, events=400)
    async with kit.open(chunk=10, retention=keep) as storage:
        entered = await storage.register([device("alice", str(i), tags=["t"]) for i in range(40)], T0)
        old, running = submission(idempotency_key="k"), submission()
        await post(storage, old)
        chunks = await lease_all(storage)
        await settle_all(storage, chunks, T0)
        await post(storage, running)
        await storage.remove_endpoints("default", [each.id for each in entered[:5]], T0)
        events = len(await storage.events())
        law(await storage.prune(T0 + 99, limit=100) == 0, "nothing is pruned within its retention")
        law(await storage.status(old.id, T0) is not None, "a finished notification is kept so long")
        await _prune_all(storage, T0 + 101)
        law(await storage.status(old.id, T0) is None, "then it is deleted")
        law(await storage.deliveries(old.id) == [], "with its deliveries")
        law(await storage.status(running.id, T0) is not None, "a running notification is never pruned")
        (replay,) = await storage.put([submission(idempotency_key="k")], T0 + 102)
        law(replay.replayed and replay.id == old.id, "its idempotency key has its own retention")
        await _prune_all(storage, T0 + 201)
        await post(storage, submission(idempotency_key="k"), T0 + 201)
        everybody = EndpointFilter(state=None)
        law(len(await storage.list_endpoints(everybody)) == 40, "quarantine has its own")
        await _prune_all(storage, T0 + 301)
        law(len(await storage.list_endpoints(everybody)) == 35, "then endpoints are deleted")
        law(len(await storage.resolve(array("q", [entered[0].id]), 0.0)) == 0, "and resolve to nothing")
        law(len(await storage.events()) >= events, "events have their own")
        await _prune_all(storage, T0 + 500)
        law([event for event in await storage.events() if event.at <= T0] == [], "then they are deleted")
        (again,) = await storage.register([device("alice", "0")], T0 + 501)
        law(again.id > max(each.id for each in entered), "an endpoint id is never used again")
        await post(storage, submission(now=T0 + 501))
        leased = await lease_all(storage, T0 + 501)
        law(min(chunk.id for chunk in leased if chunk.attempt) > 0, "chunks are leased as ever")
        law(not {chunk.id for chunk in chunks} & {chunk.id for chunk in leased}, "a chunk id is never used again")
        last = (await storage.events())[-1:]
        await storage.remove_endpoints("default", [again.id], T0 + 502)
        newest = (await storage.events())[-1]
        law(not last or newest.id > last[0].id, "event ids only grow")


async def _prune_all(storage: Storage, now: float) -> None:
    """Three rows at a time, until nothing is left to prune."""
    for _ in range(1000):
        pruned = await storage.prune(now, limit=3)
        law(pruned <= 3, f"one call deletes no more rows than its limit: {pruned}")
        if not pruned:
            return
    raise AssertionError("pruning comes to an end")


async def deliveries_are_listed(kit: Kit) -> None:
    """Every delivery once, by endpoint id, in pages, by state."""
    async with kit.open(chunk=3) as storage:
        devices = [device("alice", str(i), binding="apns" if i % 2 else "fcm") for i in range(14)]
        entered = await storage.register(devices, T0)
        ids = [each.id for each in entered]
        await post(storage, sub := submission())
        for binding in ("apns", "fcm"):
            chunks = await lease_all(storage, binding=binding)
            first = chunks[0]
            part = Settlement(first.id, first.epoch, results={("accepted", ""): [0], ("rejected", "BadTopic"): [1]})
            part.retries = [RetryRow(2, T0 + 9, 2, Waiting.BACKOFF.value, "busy")]
            await storage.settle([part], T0)
        listed = await storage.deliveries(sub.id)
        law([row[0] for row in listed] == ids, f"every delivery once, by endpoint id: {listed}")
        states = [row[1] for row in listed]
        law((states.count("accepted"), states.count("rejected"), states.count("pending")) == (2, 2, 10), "and state")
        paged: list[tuple[int, str, str]] = []
        while page := await storage.deliveries(sub.id, after=paged[-1][0] if paged else 0, limit=4):
            law(len(page) <= 4, "a page has at most its limit")
            paged += page
        law(paged == listed, "pages put together are the whole")
        rejected = await storage.deliveries(sub.id, state="rejected")
        law([row[2] for row in rejected] == ["BadTopic"] * 2, "a state alone, with its reasons")
        pending = await storage.deliveries(sub.id, state="pending", limit=3)
        law(len(pending) == 3 and pending == [row for row in listed if row[1] == "pending"][:3], "pages by state too")
        backoff = [row for row in listed if row[2] == "backoff"]
        law(len(backoff) == 2, "a retry is listed with what it waits for")
        law(await storage.deliveries("00000000-0000-7000-8000-000000000000") == [], "an unknown id has none")


async def the_log_has_a_cursor(kit: Kit) -> None:
    """Events come in order, after a cursor, in pages."""
    async with kit.sent(5) as (storage, ids):
        await storage.remove_endpoints("default", ids, T0 + 1)
        events = await storage.events()
        law(len(events) == 5 and [e.id for e in events] == sorted({e.id for e in events}), "ids grow")
        law(await storage.events(after=events[1].id, limit=2) == events[2:4], "after the cursor, up to the limit")
        law(await storage.events(after=events[-1].id) == [], "after the last there is nothing")
        law(events[0].data["user"] == "alice" and events[0].data["binding"] == "apns", "an event says whose endpoint")


async def changes_are_seen(kit: Kit) -> None:
    """The number differs after a commit, and only then."""
    async with kit.sent(1) as (storage, _):
        before = await storage.changes()
        await post(storage, submission())
        law(await storage.changes() != before, "changes differs after a put")
        (chunk,) = await lease_all(storage)
        idle: list[Callable[[], Awaitable[object]]] = [
            lambda: storage.waiting("default", "apns", T0),
            lambda: storage.expand("default", "apns", T0, ahead=4),
            lambda: lease_all(storage),
            lambda: storage.extend([(chunk.id, chunk.epoch + 1, T0 + 60)]),
            lambda: storage.expire(T0, limit=10),
            lambda: storage.prune(T0, limit=10),
        ]
        busy: list[Callable[[], Awaitable[object]]] = [
            lambda: storage.extend([(chunk.id, chunk.epoch, T0 + 60)]),
            lambda: settle_all(storage, [chunk]),
            lambda: storage.prune(T0 + 1e9, limit=10),
        ]
        for call in (*idle, *busy):
            before = await storage.changes()
            await call()
            changed = await storage.changes() != before
            law(changed == (call in busy), "every write shows, and a call without work wakes no process")


async def everything_survives_reopening(kit: Kit) -> None:
    """Closed and opened again, everything is as it was: endpoints, chunks, leases with their epochs, retries, keys."""
    async with kit.open(chunk=2) as storage:
        devices = [device("alice", str(i), tags=["t"], expires_at=T0 + 9e6) for i in range(6)]
        entered = await storage.register(devices, T0)
        sub, wide = submission(idempotency_key="k"), submission(Target.topic("t"), lane=2)
        await post(storage, sub)
        await post(storage, wide)
        one, two, _three = await lease_all(storage)
        rows = [RetryRow(0, T0 + 50, 2, Waiting.BACKOFF.value, "busy")]
        await storage.settle([Settlement(one.id, one.epoch, results={("accepted", ""): [1]}, retries=rows)], T0)
        await storage.remove_endpoints("default", [entered[5].id], T0)
        status, events = await standing(storage, sub.id), await storage.events()
    async with kit.open_again(chunk=2) as storage:
        law(await standing(storage, sub.id) == status, "the status is as it was")
        law(await storage.events() == events, "the log is as it was")
        law(await storage.get_endpoint("default", entered[0].id) == entered[0], "an endpoint is as it was")
        law(await lease_all(storage, T0 + 29) == [], "leases are as they were")
        law(await storage.extend([(two.id, two.epoch, T0 + 60)]) == [], "and can be extended")
        chunks = await lease_all(storage, T0 + 51)
        law({(chunk.attempt, len(chunk.ids)) for chunk in chunks} == {(1, 2), (2, 1)}, "retries and chunks are due")
        (replay,) = await storage.put([submission(idempotency_key="k")], T0 + 51)
        law(replay.replayed and replay.id == sub.id, "keys are as they were")
        while await storage.expand("default", "apns", T0 + 51, ahead=9):
            pass
        law(len(await lease_all(storage, T0 + 51, lane=2)) == 3, "expansions go on where they stood")


async def two_openers_share(kit: Kit) -> None:
    """Two openers of one database see each other's work, and hold no chunk both."""
    async with kit.open(chunk=2) as one:
        if not one.shared:
            return
        async with kit.open_again(chunk=2) as two:
            await one.register([device("alice", str(i)) for i in range(8)], T0)
            before = await two.changes()
            law(await two.changes() == before, "nothing happens, nothing changes")
            sub = submission()
            await post(one, sub)
            law(await two.changes() != before, "the other opener's commit is seen")
            law((await two.waiting("default", "apns", T0))[0][1], "and so is the work")
            leased = [*await lease_all(one, limit=4), *await lease_all(two, worker="w2", limit=4)]
            law(len({chunk.id for chunk in leased}) == len(leased) == 4, "no chunk is held by both")
            taken = await lease_all(two, T0 + 30, worker="w2")
            law(len(taken) == 4, "the leases of a lost opener are taken over")
            law(await one.settle([done(leased[0])], T0 + 30) == [Settled(True)], "fencing reaches across")
            await settle_all(two, taken, T0 + 31)
            law((await standing(one, sub.id)).state == "done", "both see the end")
