"""The laws of lease and settle: one holder, fenced; one end per delivery; and sums that are right at every moment."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from fanout.core.endpoint import EndpointState
from fanout.core.model import Target
from fanout.core.records import EndpointGone, LeaseRequest, Release, RetryRow, Settled, Settlement
from fanout.core.states import DOUBT, Waiting
from fanout.errors import UsageError
from fanout.testing.storage_kit import T0, Kit, device, done, law, lease_all, post, settle_all, standing, submission

_BACKOFF = Waiting.BACKOFF.value


async def leases_are_exclusive(kit: Kit) -> None:
    """Oldest due first, up to the limit, and nothing twice."""
    later, sooner = submission(now=T0 + 2), submission(now=T0 + 1)
    async with kit.sent(20, later, sooner, chunk=10) as (storage, _):
        law(await lease_all(storage, T0 + 2, lane=0) == [], "a lease is of one lane")
        law(await lease_all(storage, T0 + 2, binding="fcm") == [], "a lease is of one binding")
        law(await lease_all(storage, T0 + 2, app="shop") == [], "a lease is of one app")
        one = await lease_all(storage, T0 + 2, limit=5)
        law(len(one) == 1, "a lease stops once the limit is reached, and gives a whole chunk if there is one")
        law(one[0].notification == sooner.id, "the oldest due comes first")
        law(one[0].epoch >= 1 and one[0].lease_until == T0 + 32, "a lease has an epoch, and runs until the given time")
        two = await lease_all(storage, T0 + 2, limit=20, worker="w2")
        law([chunk.notification for chunk in two] == [sooner.id, later.id], "the next one follows, for anybody")
        three = await lease_all(storage, T0 + 2, limit=1000)
        leased = [chunk.id for chunk in one + two + three]
        law(len(leased) == len(set(leased)) == 4, "no chunk is held twice")
        law(await lease_all(storage, T0 + 2) == [], "then there is nothing left")


async def leases_follow_puts(kit: Kit) -> None:
    """Where writes are done in the order of their calls, a lease finds the notification that is being put before it,
    and that put alone is enough."""
    async with kit.sent(1) as (storage, _):
        if not storage.in_order:
            return
        await lease_all(storage)
        for _ in range(20):
            sub = submission()
            (put,), chunks = await asyncio.gather(storage.put([sub], T0), lease_all(storage))
            law([chunk.notification for chunk in chunks] == [put.id], f"a lease called behind a put holds it: {chunks}")


async def leases_bring_what_is_asked_for(kit: Kit) -> None:
    """The endpoints that a lease brings along are those of `resolve` and `notification`, in the order of its ids; or
    none."""
    async with kit.sent(6, submission(), chunk=4) as (storage, ids):
        await post(storage, submission(Target.endpoints([ids[5], ids[2]])))
        await storage.remove_endpoints("default", ids[1:2], T0)
        for chunk in await lease_all(storage):
            found = {row.id: row for row in await storage.resolve(chunk.ids, T0)}
            resolved = [found[id] for id in chunk.ids]
            rows = None if chunk.rows is None else [*chunk.rows]
            law(rows in (None, resolved), f"the endpoints that come with a lease are the resolved ones: {rows}")
            stored = await storage.notification(chunk.notification)
            law(chunk.stored in (None, stored), f"a notification that comes with a lease is the stored: {chunk.stored}")


async def leases_are_fenced(kit: Kit) -> None:
    """A lease that has run out is taken over with a later epoch, and its former holder can settle nothing."""
    async with kit.sent(4, sub := submission()) as (storage, ids):
        (old,) = await lease_all(storage, lease=30)
        part = Settlement(old.id, old.epoch, results={("accepted", ""): [0]}, attempts=1)
        law(await storage.settle([part], T0 + 1) == [Settled(False)], "the holder settles as it goes")
        law(await lease_all(storage, T0 + 29, worker="w2") == [], "a running lease is nobody else's")
        law((await storage.waiting("default", "apns", T0 + 29)) == ([False] * 3, T0 + 30), "its end is known")
        (new,) = await lease_all(storage, T0 + 30, worker="w2", lease=30)
        law(new.id == old.id and new.epoch > old.epoch, "a takeover is of a later epoch")
        law(new.states[0] != 0 and new.states[1:] == bytes(3), "settled deliveries stay settled, the rest is open")
        stale = Settlement(
            old.id,
            old.epoch,
            results={("rejected", "x"): [1]},
            retries=[RetryRow(2, T0 + 40, 2, _BACKOFF, "y")],
            changes=[EndpointGone(ids[3], 1, T0 + 31, "z")],
            attempts=3,
            release=Release(T0 + 31, Waiting.GATE.value),
        )
        before = await standing(storage, sub.id)
        law(await storage.settle([stale], T0 + 31) == [Settled(True)], "a former holder's settlement is refused")
        law(await standing(storage, sub.id) == before, "and leaves no trace: no result, no retry, no attempt")
        kept = await storage.get_endpoint("default", ids[3])
        law(kept is not None and kept.state is EndpointState.ACTIVE, "nor a change of an endpoint")
        law(await storage.extend([(old.id, old.epoch, T0 + 99)]) == [old.id], "nor can it extend what it lost")
        mixed = await storage.settle([stale, done(new)], T0 + 32)
        law(mixed == [Settled(True), Settled(False, sub.id)], f"a stale settlement spoils no other: {mixed}")
        law(await storage.settle([done(new)], T0 + 33) == [Settled(True)], "a chunk that is done has no holder")
        law(await storage.extend([(new.id, new.epoch, T0 + 99), (10**9, 1, T0 + 99)]) == [new.id, 10**9], "nor a lease")
        law(await lease_all(storage, T0 + 999) == [], "nor can it be leased again")


async def extending_keeps_a_lease(kit: Kit) -> None:
    """An extended lease runs to its new end."""
    async with kit.sent(1, submission()) as (storage, _):
        (chunk,) = await lease_all(storage, lease=30)
        law(await storage.extend([(chunk.id, chunk.epoch, T0 + 60)]) == [], "a held lease is extended")
        law(await lease_all(storage, T0 + 59, worker="w2") == [], "until its new end it is held")
        law(len(await storage.settle([done(chunk)], T0 + 59)) == 1, "and can be settled")
        law(await storage.extend([]) == [], "extending nothing loses nothing")


async def each_lease_has_its_end(kit: Kit) -> None:
    """Leases that are extended together end each at its own time."""
    async with kit.sent(1, submission(), submission(), submission()) as (storage, _):
        one, two, three = await lease_all(storage, lease=30)
        wanted = [(three.id, three.epoch, T0 + 90), (one.id, one.epoch, T0 + 60), (two.id, two.epoch, T0 + 75)]
        law(await storage.extend(wanted) == [], "held leases are extended")
        law(await lease_all(storage, T0 + 59.5, worker="w2") == [], "all run until the first ends")
        for chunk, end in ((one, 60), (two, 75), (three, 90)):
            taken = [each.id for each in await lease_all(storage, T0 + end, worker="w2", lease=1000)]
            law(taken == [chunk.id], f"{end} s later the lease extended until then has ended, no other: {taken}")


async def put_and_lease_are_two_calls(kit: Kit) -> None:
    """Where a storage puts and leases in one operation, its answers are those of the calls one after another."""
    async with AsyncExitStack() as stack:
        storage: Any = await stack.enter_async_context(kit.open())
        if not hasattr(storage, "put_and_lease"):
            return
        other = await stack.enter_async_context(kit.open())
        wanted = [submission(lane=1), submission(lane=0), submission(due_at=T0 + 60)]
        leases = [LeaseRequest("w1", "default", "apns", lane, 10, T0 + 30) for lane in (0, 1, 2)]
        for each in (storage, other):
            await each.register([device("alice", "1"), device("alice", "2")], T0)
        puts, leased = await storage.put_and_lease(wanted, leases, T0)
        law(puts == await other.put(wanted, T0), f"it puts as `put` does: {puts}")
        found = [
            await other.lease(w, app, binding, lane, limit=limit, now=T0, until=until)
            for w, app, binding, lane, limit, until in leases
        ]
        shapes = [
            [[(c.notification, list(c.ids), c.attempt) for c in each] for each in both] for both in (leased, found)
        ]
        law(shapes[0] == shapes[1], f"and then leases as `lease` does, what was just put too: {shapes}")
        law([len(each) for each in leased] == [1, 1, 0], "each lease asks for a lane")
        for chunk in (chunk for each in leased for chunk in each):
            law(await storage.settle([done(chunk)], T0) != [Settled(True)], "leased chunks can be settled")


async def finishing_is_told_once(kit: Kit) -> None:
    """The settlement that ends a notification says so, and no other; the log has it once, with the counts."""
    async with kit.sent(4, sub := submission(), chunk=2) as (storage, _):
        one, two = await lease_all(storage)
        law(await storage.settle([done(one)], T0 + 1) == [Settled(False)], "half of it is not the end")
        status = await standing(storage, sub.id)
        law((status.state, status.counts["pending"], status.attempts) == ("running", 2, 2), f"half pends: {status}")
        ends = await storage.settle([done(two, "rejected", "BadTopic")], T0 + 2)
        law(ends == [Settled(False, sub.id)], f"the last settlement finishes it: {ends}")
        status = await standing(storage, sub.id)
        law(ends[0].status in (None, status), f"a status that comes with that answer is the one that is read: {ends}")
        law((status.state, status.finished_at, status.attempts) == ("done", T0 + 2, 4), f"it is done: {status}")
        law(dict(status.reasons["rejected"]) == {"BadTopic": 2}, "reasons are counted")
        (event,) = await storage.events()
        law(event.kind == "notification.finished" and event.at == T0 + 2, "the log has it once")
        law(event.data["counts"]["accepted"] == 2 and event.data["counts"]["rejected"] == 2, "with its counts")
        law(event.data["state"] == "done" and event.data["total"] == 4, "its state and total")


async def releases_wait(kit: Kit) -> None:
    """A lease given back leaves its open deliveries until the time named, for the reason named."""
    async with kit.sent(3, sub := submission()) as (storage, _):
        (chunk,) = await lease_all(storage)
        back = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [1]}, attempts=1)
        back.release = Release(T0 + 60, Waiting.BREAKER.value)
        law(await storage.settle([back], T0 + 1) == [Settled(False)], "results and release go together")
        law(await storage.settle([done(chunk)], T0 + 1) == [Settled(True)], "a released chunk is held no more")
        status = await standing(storage, sub.id)
        law(dict(status.pending_by_reason) == {"breaker": 2}, f"it waits for its reason: {status}")
        law(dict(await storage.outstanding()) == {"breaker": 2}, "outstanding says so too")
        law(await lease_all(storage, T0 + 59) == [], "it is not leased before its time")
        law(await storage.waiting("default", "apns", T0 + 59) == ([False] * 3, T0 + 60), "waiting knows when")
        (again,) = await lease_all(storage, T0 + 60)
        law((again.id, again.attempt, again.states.count(0)) == (chunk.id, 1, 2), "then it is, at the same attempt")
        law(again.epoch > chunk.epoch, "under a new epoch")
        law(dict(await storage.outstanding("default")) == {"leased": 2}, "leased deliveries are outstanding")
        law(dict(await storage.outstanding("shop")) == {}, "per app, when asked so")


async def retries_are_gathered(kit: Kit) -> None:
    """Retry rows that are due become chunks again, one per notification and attempt."""
    one, two = submission(), submission()
    async with kit.sent(8, one, two, chunk=4) as (storage, _):
        settlements = []
        for chunk in await lease_all(storage):
            rows = [RetryRow(position, T0 + 10 + position, 2, _BACKOFF, "busy") for position in (3, 0, 1)]
            other = [RetryRow(2, T0 + 10, 3, Waiting.QUOTA.value, "busy")]
            settlements.append(Settlement(chunk.id, chunk.epoch, retries=rows + other, attempts=4))
        await storage.settle(settlements, T0 + 1)
        status = await standing(storage, one.id)
        law(dict(status.pending_by_reason) == {"backoff": 6, "quota": 2}, f"retries are pending: {status}")
        listed = await storage.deliveries(one.id)
        law(len(listed) == 8 and {row[1] for row in listed} == {"pending"}, "each is listed once, as pending")
        law(await lease_all(storage, T0 + 9) == [], "no retry before it is due")
        law(await storage.waiting("default", "apns", T0 + 9) == ([False] * 3, T0 + 10), "waiting knows when")
        chunks = await lease_all(storage, T0 + 11)
        shape = sorted((chunk.notification, chunk.attempt, len(chunk.ids)) for chunk in chunks)
        expected = sorted([(sub.id, attempt, n) for sub in (one, two) for attempt, n in ((2, 4), (3, 2))])
        law(shape == expected, f"due retries are gathered by notification and attempt: {shape}")
        law(all(list(chunk.ids) == sorted(chunk.ids) for chunk in chunks), "ids ascend in gathered chunks too")
        rest = await lease_all(storage, T0 + 13)
        law(sorted(len(chunk.ids) for chunk in rest) == [2, 2], "the others when they are due")
        ends = await settle_all(storage, chunks + rest, T0 + 14)
        law(sorted(each.finished for each in ends if each.finished) == sorted([one.id, two.id]), "then all is done")
        status = await standing(storage, one.id)
        law((status.counts["accepted"], status.attempts) == (8, 16), f"each ended once: {status}")
        listed = await storage.deliveries(one.id)
        law(len(listed) == 8 and {row[1] for row in listed} == {"accepted"}, "each is listed once, as accepted")


async def doubt_ends_unknown(kit: Kit) -> None:
    """A delivery marked before its send ends by its result, or as dead and unknown when its holder is lost."""
    async with kit.sent(5, sub := submission()) as (storage, _):
        (chunk,) = await lease_all(storage)
        mark = Settlement(chunk.id, chunk.epoch, results={(DOUBT, ""): [0, 1, 2, 3]})
        law(await storage.settle([mark], T0) == [Settled(False)], "marking doubt finishes nothing")
        status = await standing(storage, sub.id)
        law(status.counts["pending"] == 5, f"doubt is not an end: {status}")
        half = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]}, reopen=[1], attempts=1)
        await storage.settle([half], T0 + 1)
        law(dict((await standing(storage, sub.id)).counts)["accepted"] == 1, "its result overwrites doubt")
        (taken,) = await lease_all(storage, T0 + 30, worker="w2")
        status = await standing(storage, sub.id)
        law(dict(status.reasons.get("dead", {})) == {"unknown": 2}, f"the lost holder's marks are dead: {status}")
        law(taken.states.count(0) == 2, "unmarked and reopened ones are open")
        ends = await storage.settle([done(taken)], T0 + 31)
        law(ends == [Settled(False, sub.id)], "the open rest ends as ever")

        sub = submission()
        await post(storage, sub, T0 + 40)
        (chunk,) = await lease_all(storage, T0 + 40)
        await storage.settle([Settlement(chunk.id, chunk.epoch, results={(DOUBT, ""): [0, 1, 2, 3, 4]})], T0 + 40)
        law(await lease_all(storage, T0 + 70, worker="w2") == [], "a chunk in which all is doubt is not leased again")
        status = await standing(storage, sub.id)
        law((status.state, status.counts["dead"]) == ("done", 5), f"it is ended: {status}")
        late = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]})
        law(await storage.settle([late], T0 + 71) == [Settled(True)], "and the late result is refused")


async def nothing_overwrites_an_end(kit: Kit) -> None:
    """A second result for one delivery is a fault of the caller: the whole call is refused and nothing of it stored."""
    sub, other = submission(), submission()
    async with kit.sent(3, sub, other) as (storage, _):
        chunk, innocent = await lease_all(storage)
        first = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]})
        first.retries = [RetryRow(1, T0 + 5, 2, _BACKOFF, "busy")]
        await storage.settle([first], T0)
        before = await standing(storage, sub.id)
        for wrong in (
            Settlement(chunk.id, chunk.epoch, results={("rejected", "x"): [0]}),
            Settlement(chunk.id, chunk.epoch, results={("rejected", "x"): [1]}),
            Settlement(chunk.id, chunk.epoch, results={("rejected", "x"): [2], ("accepted", ""): [2]}),
            Settlement(chunk.id, chunk.epoch, retries=[RetryRow(0, T0 + 5, 2, _BACKOFF, "x")]),
            Settlement(chunk.id, chunk.epoch, reopen=[2]),
            Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [3]}),
            Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [-1]}),
            Settlement(chunk.id, chunk.epoch, results={("nonsense", ""): [2]}),
        ):
            try:
                await storage.settle([done(innocent), wrong], T0)
            except UsageError:
                pass
            else:
                raise AssertionError(f"settle refuses what overwrites an end or makes no sense: {wrong}")
            law(await standing(storage, sub.id) == before, "a refused call leaves no trace")
            untouched = await standing(storage, other.id)
            law(untouched.counts["accepted"] == 0, "of any of its settlements")


async def endless_reasons_fall_together(kit: Kit) -> None:
    """However many texts a gateway invents, states stay right and sums add up."""
    async with kit.sent(900, sub := submission()) as (storage, _):
        (chunk,) = await lease_all(storage)
        for state, start in (("rejected", 0), ("dead", 300), ("gone", 600)):
            results = {(state, f"reason {i}"): [start + i] for i in range(300)}
            await storage.settle([Settlement(chunk.id, chunk.epoch, results=results)], T0)
        status = await standing(storage, sub.id)
        counts = {state: status.counts[state] for state in ("rejected", "dead", "gone", "pending")}
        law(counts == {"rejected": 300, "dead": 300, "gone": 300, "pending": 0}, f"each in its own state: {counts}")
        law(status.reasons["gone"].get("other", 0) > 0, "reasons beyond the limit are counted as other")
        listed = await storage.deliveries(sub.id, state="gone")
        law(len(listed) == 300, "and every delivery is listed in its own state")


async def waiting_tells_the_truth(kit: Kit) -> None:
    """A lane is said to have work exactly when expand or lease gives some."""
    async with kit.sent(1) as (storage, _):
        law(await storage.waiting("default", "apns", T0) == ([False] * 3, None), "nothing waits at first")
        await post(storage, submission(lane=2))
        await post(storage, submission(lane=0, due_at=T0 + 9), T0)
        ready, later = await storage.waiting("default", "apns", T0)
        law((ready, later) == ([False, False, True], T0 + 9), f"by lane, and the next time: {ready}, {later}")
        law(len(await lease_all(storage, lane=2)) == 1, "a waiting chunk can be leased")
        law((await storage.waiting("default", "apns", T0))[0] == [False] * 3, "a leased chunk does not wait")
        law((await storage.waiting("default", "apns", T0 + 9))[0][0], "a due chunk waits")
        law(Target.user("alice") == submission().target, "targets are values")
