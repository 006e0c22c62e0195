"""The laws of waiting for others: turns in a lane, back-off of an endpoint, later notifications, and how much there
is."""

from __future__ import annotations

from array import array

from fanout.core.model import Target
from fanout.core.records import Backlog, Put, RetryRow, Settlement
from fanout.core.states import Waiting
from fanout.testing.storage_kit import T0, Kit, device, done, law, lease_all, post, settle_all, standing, submission

_BACKOFF = Waiting.BACKOFF.value


async def long_targets_take_turns(kit: Kit) -> None:
    """Of a target of more than four chunks four are due; the rest take turns with others, and no chunk is lost."""
    async with kit.open(chunk=5) as storage:
        entered = await storage.register([device("alice", str(i)) for i in range(48)], T0)
        await storage.register([device(f"u{i}", f"u{i}", tags=["t"]) for i in range(10)], T0)
        long = submission()
        law(await post(storage, long) == Put(long.id, 48), "its total is known at once")
        status = await standing(storage, long.id)
        law((status.state, dict(status.pending_by_reason)) == ("running", {"lane": 48}), f"it runs: {status}")
        early = await standing(storage, long.id, T0 - 50)
        law(dict(early.pending_by_reason) == {"ready": 20, "lane": 28}, "before its time, it is all held back")
        law(dict(await storage.outstanding()) == {"ready": 20, "lane": 28}, "chunks held back wait for their turn")
        words = [row[2] for row in await storage.deliveries(long.id)]
        law((words.count("ready"), words.count("lane")) == (20, 28), "as each delivery says")
        await post(storage, short := submission(Target.user("u1"), now=T0 + 1))
        await post(storage, wide := submission(Target.topic("t"), now=T0 + 1))
        await post(storage, longer := submission(now=T0 + 2))
        law(await storage.expand("default", "apns", T0 + 3, ahead=4) == 0, "no more while four wait")
        chunks = await lease_all(storage, T0 + 3)
        of = [chunk.notification for chunk in chunks]
        law(of == [long.id] * 4 + [short.id] + [longer.id] * 4, f"four are due, then come others: {of}")
        law(await storage.waiting("default", "apns", T0 + 3) == ([False, True, False], None), "the rest is work")
        law(await storage.expand("default", "apns", T0 + 4, ahead=4) == 4, "a lease makes room")
        more = await lease_all(storage, T0 + 4)
        of = [chunk.notification for chunk in more]
        law(sorted(of) == sorted([long.id, wide.id, longer.id, long.id]), f"those due first first, a chunk each: {of}")
        await storage.pause("default", longer.id, T0 + 4)
        await post(storage, late := submission(Target.user("u2"), now=T0 + 4.5))
        law(await storage.expand("default", "apns", T0 + 5, ahead=3) == 2, "a paused one has no turns")
        last = await lease_all(storage, T0 + 5)
        of = [chunk.notification for chunk in last]
        law(
            (of[0], sorted(of)) == (late.id, sorted([late.id, wide.id, long.id])),
            f"a turn is due when it comes, not when it was sent: {of}",
        )
        law(await storage.cancel("default", longer.id, T0 + 5) == 5, "they can be cancelled")
        status = await standing(storage, longer.id, T0 + 5)
        law((status.counts["cancelled"], status.counts["pending"]) == (23, 25), f"as what nobody holds: {status}")
        chunks += more + last
        for _ in range(9):
            await storage.expand("default", "apns", T0 + 6, ahead=4)
            chunks += await lease_all(storage, T0 + 6)
        await settle_all(storage, chunks, T0 + 7)
        got = [list(chunk.ids) for chunk in chunks if chunk.notification == long.id]
        law(got == [[each.id for each in entered[i : i + 5]] for i in range(0, 48, 5)], "in order, each once")
        law((await standing(storage, long.id, T0 + 7)).state == "done", "and then it is done")
        law(await storage.waiting("default", "apns", T0 + 99) == ([False] * 3, None), "nothing is left")

        await post(storage, brief := submission(now=T0 + 10, ttl=5))
        while await storage.expire(T0 + 15, limit=7):
            pass
        status = await standing(storage, brief.id, T0 + 15)
        law((status.state, status.counts["expired"]) == ("done", 48), f"they expire: {status}")
        await post(storage, submission(now=T0 + 20, due_at=T0 + 30))
        law(await storage.expand("default", "apns", T0 + 30, ahead=1) == 4, "a schedule begins with four, too")
        law(len(await lease_all(storage, T0 + 30)) == 4, "and the rest is held back")


async def backlog_is_counted(kit: Kit) -> None:
    """The accepted work that has not ended, per app: deliveries, bytes, and since when."""
    async with kit.open(chunk=10) as storage:
        law(await storage.backlog("default") == Backlog(), "at first there is nothing")
        devices = [device("alice", str(i), tags=["t"], binding="apns" if i % 2 else "fcm") for i in range(20)]
        await storage.register(devices, T0)
        size = len(submission().content)
        one, wide, later = submission(), submission(Target.topic("t"), now=T0 + 1), submission(due_at=T0 + 50)
        await post(storage, one)
        law(await storage.backlog("default") == Backlog(20, size, T0), "deliveries, bytes, and the oldest due time")
        await post(storage, wide)
        await post(storage, later, T0)
        law(await storage.backlog("default") == Backlog(23, 3 * size, T0), "an expansion, a schedule: one each")
        law(await storage.backlog("shop") == Backlog(), "another app's is its own")
        chunks = await lease_all(storage)
        law(await storage.backlog("default") == Backlog(23, 3 * size, T0), "leased deliveries have not ended")
        half = Settlement(chunks[0].id, chunks[0].epoch, results={("accepted", ""): [0, 1]})
        half.retries = [RetryRow(2, T0 + 90, 2, _BACKOFF, "busy")]
        await storage.settle([half], T0)
        law(await storage.backlog("default") == Backlog(21, 3 * size, T0), "an ended one counts no more; a retry does")
        await storage.cancel("default", one.id, T0 + 30)
        law(await storage.backlog("default") == Backlog(3, 2 * size, T0 + 1), "nor what is cancelled")
        await storage.expand("default", "apns", T0 + 1, ahead=9)
        law(await storage.backlog("default") == Backlog(12, 2 * size, T0 + 1), "expanded chunks count in full")
        await storage.cancel("default", wide.id, T0 + 30)
        law(await storage.backlog("default") == Backlog(1, size, T0 + 50), "a schedule is due later")
        await storage.cancel("default", later.id, T0 + 30)
        law(await storage.backlog("default") == Backlog(), "then there is nothing again")


async def endpoints_are_held(kit: Kit) -> None:
    """An endpoint is held until the latest of the retries that hold it, while they wait."""
    async with kit.open() as storage:
        entered = await storage.register([device("alice", str(i)) for i in range(4)], T0)
        ids = array("q", [each.id for each in entered])

        async def held(now: float) -> list[float]:
            return [row.held_until for row in sorted(await storage.resolve(ids, now))]

        law(await held(T0) == [0.0] * 4, "no endpoint is held at first")
        one, two = submission(), submission(now=T0 + 0.5)
        await post(storage, one)
        await post(storage, two)
        first, second = await lease_all(storage, T0 + 1)
        rows = [
            RetryRow(0, T0 + 20.5, 2, _BACKOFF, "busy", holds=True),
            RetryRow(1, T0 + 30, 2, _BACKOFF, "busy"),
            RetryRow(2, T0 + 40, 2, _BACKOFF, "busy", holds=True),
        ]
        await storage.settle([Settlement(first.id, first.epoch, retries=rows)], T0 + 1)
        law(await held(T0 + 1) == [T0 + 20.5, 0.0, T0 + 40, 0.0], "those whose retry holds them, until it is due")
        rows = [RetryRow(0, T0 + 50, 2, _BACKOFF, "busy", holds=True), RetryRow(2, T0 + 9, 1, _BACKOFF, "", holds=True)]
        await storage.settle([Settlement(second.id, second.epoch, retries=rows)], T0 + 2)
        law(await held(T0 + 2) == [T0 + 50, 0.0, T0 + 40, 0.0], "the latest of several")
        law(await held(T0 + 40) == [T0 + 50, 0.0, 0.0, 0.0], "a due retry holds no endpoint")
        chunks = await lease_all(storage, T0 + 40)
        law(sum(len(chunk.ids) for chunk in chunks) > 2, "the retries are due")
        law(await held(T0 + 2) == [T0 + 50, 0.0, 0.0, 0.0], "a leased retry holds no endpoint")
        await storage.cancel("default", two.id, T0 + 41)
        law(await held(T0 + 41) == [0.0] * 4, "nor what has ended")


async def later_ones_supersede(kit: Kit) -> None:
    """Of some endpoints, those that a later notification of the same collapse key is for, with any target."""
    async with kit.open() as storage:
        users = ("alice", "alice", "bob", "bob", "carol")
        devices = [device(user, str(n), tags=["t"] if n in (1, 3) else []) for n, user in enumerate(users, 1)]
        entered = await storage.register(devices, T0)
        one, two, three, four, five = (each.id for each in entered)
        (interned,) = await storage.intern("default", "apns", [device("", "6").address], T0)
        ids = array("q", [one, two, three, four, five, interned, 10**9])
        base, plain = submission(Target.all(), collapse_key="k"), submission(Target.all())
        await post(storage, base)
        await post(storage, plain)

        async def found(sub_id: str = "") -> set[int]:
            return await storage.superseded(sub_id or base.id, ids)

        law(await found() == set(), "the newest is superseded for nobody")
        await post(storage, submission(Target.all(), collapse_key="j"))
        await post(storage, submission(Target.all(), app="shop", collapse_key="k"))
        await post(storage, submission(Target.all()))
        law(await found() == set(), "another key or app is another thing")
        await post(storage, topic := submission(Target.topic("t"), collapse_key="k"))
        law(await found() == {one, three}, "a topic is for the endpoints with its tag")
        law(await storage.superseded(base.id, array("q", [two, three])) == {three}, "of those that were asked for")
        law(await found(plain.id) == set(), "without a collapse key nothing is superseded")
        law(await found("00000000-0000-7000-8000-000000000000") == set(), "an unknown id has no successor")
        law(await found(topic.id) == set(), "an earlier one supersedes nothing")
        user = submission(collapse_key="k", due_at=T0 + 50)
        await post(storage, user, T0)
        law(await found() == {one, two, three}, "a user is for his endpoints, now or later")
        await storage.cancel("default", topic.id, T0)
        law(await found() == {one, two}, "a cancelled retry does not count")
        await storage.cancel("default", user.id, T0)
        explicit = submission(Target.endpoints([four, 10**9]), collapse_key="k")
        addresses = (device("", "6").address, device("", "5").address)
        await post(storage, explicit)
        await post(storage, submission(Target("addresses", binding="apns", addresses=addresses), collapse_key="k"))
        law(await found() == {four, five, interned}, "endpoints and addresses are themselves, if they exist")
        await settle_all(storage, [c for c in await lease_all(storage) if c.notification == explicit.id], T0 + 1)
        law((await standing(storage, explicit.id)).state == "done", "one has finished")
        law(four in await found(), "and counts all the same")
        await post(storage, submission(Target.endpoints([four, 10**9]), collapse_key="k"))
        await post(storage, submission(Target.users(["alice", "carol"]), collapse_key="k"))
        law(await found() == {one, two, four, five, interned}, "any of several will do")
        law(await found(explicit.id) == {one, two, four, five, interned}, "of any earlier one")
        await storage.register([device("bob", "1", tags=["t"]), device("alice", "2", tags=["t"])], T0 + 2)
        await storage.remove_endpoints("default", [five], T0 + 2)
        law(await found() == {two, four, interned}, "a removed endpoint is listed no more")
        await post(storage, submission(Target.all(), collapse_key="k"))
        law(await found() == {two, three, four, interned}, "a broadcast is for everybody's")
        chunks = await lease_all(storage, T0 + 3)
        await storage.settle([done(chunk) for chunk in chunks], T0 + 3)
