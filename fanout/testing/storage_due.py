"""Checks of times to come: when `waiting` says that there will be work, and endings before a worker could begin."""

from __future__ import annotations

from array import array

from fanout.core.model import Target
from fanout.core.records import Expired, GateNote, Release, RetryRow, Settlement
from fanout.core.states import Waiting
from fanout.plugin import Storage
from fanout.testing.storage_kit import ALICE, T0, Kit, device, law, lease_all, post, settle_all, standing, submission

_AHEAD = 28_800.0
"""Seconds by which the clock was ahead."""


async def _next(storage: Storage, at: float, *, binding: str = "apns", app: str = "default") -> float | None:
    ready, later = await storage.waiting(app, binding, at)
    law(not any(ready), f"nothing is work at this moment: {ready} for {binding}")
    law(later is None or later > at, f"a later due time is later: {later}")
    return later


def _unexpanded(expired: int) -> dict[str, int]:
    law(isinstance(expired, Expired), "expire answers an Expired")
    return dict(getattr(expired, "unexpanded", {}))


async def waiting_names_the_next_due_time(kit: Kit) -> None:
    """The earliest of everything that will be due for a binding, to the moment: a worker sleeps until then and no
    less."""
    async with kit.open(chunk=10) as storage:
        await storage.register([device("alice", "1", tags=["t"]), device("alice", "2", binding="fcm")], T0)
        await storage.register([device("bob", "3", app="other")], T0)
        law(await _next(storage, T0) is None, "nothing is ever due where nothing was put")

        # A schedule is of no binding yet: it is due for each of its app's, and for no other app's.
        late, soon = submission(Target.topic("t"), due_at=T0 + 300.5, lane=2), submission(due_at=T0 + 60.25, lane=0)
        await post(storage, late, T0)
        law(await _next(storage, T0) == T0 + 300.5, "a schedule is due at its time")
        await post(storage, soon, T0)
        for binding in ("apns", "fcm"):
            law(await _next(storage, T0, binding=binding) == T0 + 60.25, "the earlier of two, in whatever lane")
        law(await _next(storage, T0, app="other", binding="apns") is None, "another app has nothing to wait for")
        await storage.cancel("default", soon.id, T0 + 1)
        law(await _next(storage, T0 + 1) == T0 + 300.5, "a cancelled schedule is not waited for")
        await storage.pause("default", late.id, T0 + 1)
        law(await _next(storage, T0 + 1) is None, "nor what is paused")
        await storage.resume("default", late.id, T0 + 2)
        law(await _next(storage, T0 + 2) == T0 + 300.5, "a resumed schedule is waited for again")

        # A lease: until it runs out, also where it was extended; then deliveries that were given back, and retries.
        await storage.register([device("carol", f"c{n}") for n in range(20)], T0)
        await post(storage, submission(Target.user("carol"), now=T0 + 3))
        first, second = await lease_all(storage, T0 + 3, lease=30)
        law(await _next(storage, T0 + 3) == T0 + 33, "a lease that runs out is work")
        await storage.extend([(first.id, first.epoch, T0 + 50), (second.id, second.epoch, T0 + 50)])
        law(await _next(storage, T0 + 3) == T0 + 50, "not before its extension is over")
        rest = Settlement(first.id, first.epoch, release=Release(T0 + 20.125, Waiting.GATE.value, "closed"))
        await storage.settle([rest], T0 + 4)
        law(await _next(storage, T0 + 4) == T0 + 20.125, "a released chunk is due at the time of its release")
        retry = RetryRow(0, T0 + 12.75, 2, Waiting.BACKOFF.value, "busy")
        await storage.settle([Settlement(second.id, second.epoch, retries=[retry])], T0 + 5)
        law(await _next(storage, T0 + 5) == T0 + 12.75, "a retry is due at its time")
        (again,) = await lease_all(storage, T0 + 13, lease=30)
        law(again.attempt == 2, "at that time it can be leased")
        law(await _next(storage, T0 + 13) == T0 + 20.125, "and the next is waited for")

        # Beside work that there is now, in another lane, the time of the next is told too.
        await post(storage, submission(now=T0 + 14, lane=0))
        ready, later = await storage.waiting("default", "apns", T0 + 14)
        law((ready, later) == ([True, False, False], T0 + 20.125), f"work now hides no work later: {ready}, {later}")


async def what_expires_before_it_is_expanded_says_so(kit: Kit) -> None:
    """It ends with the deliveries counted so far, and with a reason where something never was: no new state, and an
    event as ever."""
    async with kit.open(chunk=10) as storage:
        await storage.register([device("alice", str(n), tags=["t"]) for n in range(30)], T0)
        never = {
            "schedule": submission(ALICE, due_at=T0 + 10, ttl=5),
            "broadcast": submission(Target.all(), ttl=15),
            "topic": submission(Target.topic("t"), ttl=15),
        }
        for sub in never.values():
            await post(storage, sub, T0)
        expired = await storage.expire(T0 + 14.9, limit=100)
        law((expired, _unexpanded(expired)) == (0, {}), "nothing expires before its time")
        expired = await storage.expire(T0 + 15, limit=100)
        law(expired == 0, f"no delivery has ended, for there was none: {expired}")
        law(_unexpanded(expired) == {"default": 3}, f"the notifications are counted, by app: {_unexpanded(expired)}")
        for what, sub in never.items():
            status = await standing(storage, sub.id)
            law((status.state, status.total) == ("done", 0), f"the {what} is done, with nothing: {status}")
            reasons = {state: dict(each) for state, each in status.reasons.items()}
            law(reasons == {"expired": {"before it was expanded": 0}}, f"and its reasons say why: {reasons}")
        ends = [e.data["notification"] for e in await storage.events() if e.kind == "notification.finished"]
        law(sorted(ends) == sorted(sub.id for sub in never.values()), f"each has its event: {ends}")
        again = await storage.expire(T0 + 16, limit=100)
        law((again, _unexpanded(again)) == (0, {}), "and is ended once")

        # Of a broadcast that was expanded in part, the part is counted.
        await post(storage, part := submission(Target.all(), now=T0 + 20, ttl=10))
        await storage.expand("default", "apns", T0 + 20, ahead=1)
        expired = await storage.expire(T0 + 30, limit=100)
        law((expired, _unexpanded(expired)) == (10, {"default": 1}), f"ten deliveries, and one notification: {expired}")
        status = await standing(storage, part.id)
        law(dict(status.reasons["expired"]) == {"ttl": 10, "before it was expanded": 0}, f"it tells both: {status}")

        # A delivery that was counted when it was put is counted as expired, also where its turn had not come.
        await post(storage, whole := submission(ALICE, now=T0 + 40, ttl=10))
        dropped = submission(ALICE, now=T0 + 40, due_at=T0 + 45, ttl=5)
        await post(storage, dropped, T0 + 40)
        await storage.cancel("default", dropped.id, T0 + 41)
        expired = await storage.expire(T0 + 50, limit=100)
        law((expired, _unexpanded(expired)) == (30, {}), f"every one of them: {expired}, {_unexpanded(expired)}")
        law(dict((await standing(storage, whole.id)).reasons["expired"]) == {"ttl": 30}, "for ttl, and nothing besides")
        law(not (await standing(storage, dropped.id)).reasons, "a cancelled notification has not expired")


async def what_we_made_is_retimed(kit: Kit) -> None:
    """The clock was hours ahead, and was put right: a wait of seconds stays one of seconds, and a caller's due time
    stays."""
    async with kit.open(chunk=10) as storage:
        ahead = T0 + _AHEAD
        await storage.register([device("alice", f"a{n}") for n in range(20)] + [device("bob", "b")], T0)
        law(await storage.retime(T0) is False, "where nothing was written there is nothing to do")
        await post(storage, sub := submission(now=ahead, ttl=_AHEAD))
        wish = submission(Target.user("bob"), now=ahead, due_at=ahead + 60)
        await post(storage, wish, ahead)
        early, late = await lease_all(storage, ahead)
        retry = RetryRow(0, ahead + 5, 2, Waiting.BACKOFF.value, "busy", holds=True)
        shut = Release(ahead + 8, Waiting.GATE.value, "shut")
        rest = Settlement(early.id, early.epoch, retries=[retry], release=shut)
        await storage.settle([rest], ahead)
        gate = GateNote("default", "apns", "binding", "", "gate", "shut", ahead + 8, False, True)
        await storage.post_gates("w1", [gate], ahead)
        law(await storage.retime(ahead + 0.5) is False, "while the clock goes on, nothing is moved")
        law(await _next(storage, ahead + 1) == ahead + 5, "and each is due at its time")

        now = T0 + 100
        law([each.until for each in await storage.gates(now)] == [now + 8], "a gate is told at once as what is left")
        law(await storage.retime(now) is True, "the latest write is from the future: it is looked at")
        law(await storage.retime(now) is False, "once")
        law(await _next(storage, now) == now + 5, "a retry is due as long after as it was to be")
        (row,) = await storage.resolve(array("q", early.ids[:1]), now)
        law(row[7] == now + 5, "and holds its endpoint for as long")
        law([each.until for each in await storage.gates(now)] == [now + 8], "so is a gate closed")
        (again,) = await lease_all(storage, now + 5)
        law((again.attempt, len(again.ids)) == (2, 1), "then it can be leased")
        await settle_all(storage, [again], now + 5)
        law(await _next(storage, now + 7) == now + 8, "released chunks, too")
        (back,) = await lease_all(storage, now + 8)
        law(back.id == early.id, "at its time")
        law(late.lease_until > now, "a lease is its holder's own affair")
        await settle_all(storage, [back, late], now + 9)
        law((await storage.waiting("default", "apns", now + 9))[1] == ahead + 60, "a wish stays where it is")

        # A caller that saw the clock being set says so: others may have written by the right one since.
        await post(storage, sub := submission(now=ahead, ttl=_AHEAD))
        chunks = await lease_all(storage, ahead)
        park = Release(ahead + 30, Waiting.QUOTA.value, "quota")
        await storage.settle([Settlement(chunk.id, chunk.epoch, release=park) for chunk in chunks], ahead)
        await storage.pause("default", sub.id, ahead)
        await storage.resume("default", sub.id, now + 20)
        law(await storage.retime(now + 20, stepped=True) is True, "it looks everywhere")
        law(await _next(storage, now + 20) == now + 50, "and finds it")
