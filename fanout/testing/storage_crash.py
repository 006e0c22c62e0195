"""The laws of crashes: no delivery is suspected at the first crash, one that kills its worker is found by halves, and
no other ends for it."""

from __future__ import annotations

from fanout.core.records import Chunk, Release, Settled, Settlement
from fanout.core.statemap import MARKED
from fanout.core.states import DOUBT, Waiting
from fanout.plugin import Storage
from fanout.testing.storage_kit import T0, Kit, done, law, lease_all, post, standing, submission


async def crashes_are_counted(kit: Kit) -> None:
    """Only a lease that runs out is a crash; at the second, a chunk is to be sent in halves."""
    async with kit.sent(9, submission(), chunk=9) as (storage, _):
        (chunk,) = await lease_all(storage, T0, lease=5)
        law(chunk.part == 0, "at first, all of a chunk may be sent together")
        for now in range(1, 4):
            back = Settlement(chunk.id, chunk.epoch, release=Release(T0 + now, Waiting.GATE.value))
            await storage.settle([back], T0 + now)
            (chunk,) = await lease_all(storage, T0 + now, lease=5)
            law(chunk.part == 0, "a lease given back is no crash")
        (chunk,) = await lease_all(storage, T0 + 8, lease=5)
        law(chunk.part == 0, "no delivery is suspected at the first crash")
        await storage.settle([Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0, 1]})], T0 + 9)
        (chunk,) = await lease_all(storage, T0 + 13, worker="w2", lease=5)
        law(chunk.part == 4, f"at the second, what is left is to be sent in two halves: {chunk.part} of 7")
        law(chunk.states.count(0) == 7, "all of which is open")
        for now in (18, 23, 28):
            (chunk,) = await lease_all(storage, T0 + now, lease=5)
            law((chunk.part, chunk.states.count(0)) == (4, 7), "a crash between two groups implicates nobody")
        back = Settlement(chunk.id, chunk.epoch, release=Release(T0 + 29, Waiting.GATE.value))
        await storage.settle([back], T0 + 29)
        (chunk,) = await lease_all(storage, T0 + 29, lease=5)
        law(chunk.part == 4, "a chunk given back is suspected as before")


async def marks_are_kept(kit: Kit) -> None:
    """A marked delivery is still open; it can end, be marked again, and is unmarked by giving the lease back."""
    async with kit.sent(6, sub := submission()) as (storage, ids):
        (chunk,) = await _suspected(storage)
        mark = Settlement(chunk.id, chunk.epoch, marks=[0, 1, 2])
        law(await storage.settle([mark, mark], T0 + 2) == [Settled(False)] * 2, "a group is marked; twice is once")
        status = await standing(storage, sub.id, T0 + 2)
        law(dict(status.pending_by_reason) == {"ready": 6}, f"marked deliveries are open: {status}")
        listed = await storage.deliveries(sub.id)
        law([row[1:] for row in listed] == [("pending", "ready")] * 6, "and listed as pending")
        half = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]}, attempts=1)
        half.release = Release(T0 + 2, Waiting.READY.value)
        await storage.settle([half], T0 + 2)
        (chunk,) = await lease_all(storage, T0 + 2, lease=1)
        law(chunk.states.count(0) == 5, "a lease given back takes the marks off")
        await storage.settle([Settlement(chunk.id, chunk.epoch, marks=[3])], T0 + 2)
        law(await storage.cancel("default", sub.id, T0 + 3) == 0, "marks of a lost holder can be cancelled")
        status = await standing(storage, sub.id, T0 + 3)
        law((status.state, status.counts["cancelled"]) == ("cancelled", 5), f"like the rest: {status}")

        await post(storage, sub := submission(now=T0 + 6, ttl=2))
        (chunk,) = await lease_all(storage, T0 + 6, lease=1)
        await storage.settle([Settlement(chunk.id, chunk.epoch, marks=[0])], T0 + 6)
        (chunk,) = await lease_all(storage, T0 + 7, lease=1)
        law((chunk.part, chunk.states) == (0, bytes(6)), "a mark before any suspicion is taken off at the crash")
        await storage.expire(T0 + 8, limit=10)

        await post(storage, sub := submission(now=T0 + 10))
        (chunk,) = await _suspected(storage, T0 + 10)
        doubt = Settlement(chunk.id, chunk.epoch, marks=[1], results={(DOUBT, ""): [0]})
        law(await storage.settle([doubt], T0 + 12) == [Settled(False)], "doubt and suspicion are two things")
        chunks = await lease_all(storage, T0 + 13, lease=1) + await lease_all(storage, T0 + 13, lease=1)
        status = await standing(storage, sub.id, T0 + 13)
        law(dict(status.reasons.get("dead", {})) == {"unknown": 1}, f"doubtful deliveries are dead: {status}")
        law([list(chunk.ids[:1]) for chunk in chunks[1:]] == [[ids[1]]], "and the marked delivery is apart")
        await storage.settle([done(chunk) for chunk in chunks], T0 + 13)
        law((await standing(storage, sub.id)).counts["accepted"] == 5, "all the others are delivered")


async def suspects_stay_together(kit: Kit) -> None:
    """The group that was under way at a crash moves to a chunk of its own, to be sent in halves, and its neighbours go
    on."""
    async with kit.sent(10, sub := submission()) as (storage, ids):
        (chunk,) = await _suspected(storage)
        law(chunk.part == 5, "ten are sent five at a time")
        first = Settlement(chunk.id, chunk.epoch, marks=[0, 1, 2, 3, 4])
        second = Settlement(chunk.id, chunk.epoch, marks=[5, 6, 7, 8], results={("accepted", ""): [0, 1, 2, 3]})
        await storage.settle([first, second], T0 + 2)
        (rest,) = await lease_all(storage, T0 + 3, lease=9)
        law((rest.id, rest.part, rest.states.count(0)) == (chunk.id, 5, 1), "a delivery that was not under way stays")
        law(MARKED not in rest.states, "no delivery of a lease is marked")
        law(rest.states[9] == 0, "and is the one")
        (group,) = await lease_all(storage, T0 + 3, lease=1)
        law(list(group.ids) == ids[4:9], "those under way are leased by the next call")
        law((group.id != chunk.id, group.part, group.attempt) == (True, 3, 1), "as a chunk, in halves")
        law(group.states == bytes(5), "unmarked")
        status = await standing(storage, sub.id, T0 + 3)
        law((status.total, status.counts["accepted"], status.counts["pending"]) == (10, 4, 6), f"sums hold: {status}")
        law([row[0] for row in await storage.deliveries(sub.id)] == ids, "each stands once")
        late = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [9]})
        law(await storage.settle([late], T0 + 3) == [Settled(True)], "their former holder settles nothing")
        await storage.settle([done(rest), Settlement(group.id, group.epoch, marks=[0, 1, 2])], T0 + 3)
        law(await storage.cancel("default", sub.id, T0 + 3) == 1, "suspected deliveries are cancelled like the rest")
        law(await lease_all(storage, T0 + 4) == [], "at a crash, too")
        status = await standing(storage, sub.id, T0 + 4)
        law((status.counts["cancelled"], status.finished_at) == (5, T0 + 4), f"and then it has finished: {status}")


async def poison_is_found(kit: Kit) -> None:
    """A delivery alone at three crashes ends as (dead, poison); all others are delivered, at the same attempt."""
    async with kit.sent(20, sub := submission(ttl=1e6), chunk=16) as (storage, ids):
        poison = {ids[3], ids[17]}
        alone: dict[int, int] = {}
        now, crashes = T0, 0
        for _ in range(200):
            chunks = await lease_all(storage, now, lease=1, limit=1)
            if not chunks and (await standing(storage, sub.id, now)).finished_at is not None:
                break
            for chunk in chunks:
                law(chunk.attempt == 1, "a crash is nobody's attempt")
                killed = await _work(storage, chunk, poison, now)
                crashes += killed is not None
                if killed is not None and len(killed) == 1:
                    alone[killed[0]] = alone.get(killed[0], 0) + 1
            now += 1
        status = await standing(storage, sub.id, now)
        law(status.finished_at is not None, f"the hunt comes to an end: {status}")
        law(dict(status.reasons.get("dead", {})) == {"poison": 2}, f"a cause of a crash ends as poison: {status}")
        law(status.counts["accepted"] == 18, f"and no other delivery: {status}")
        dead = {row[0] for row in await storage.deliveries(sub.id, state="dead")}
        law(dead == poison, "it is the one that was under way")
        law(alone == dict.fromkeys(poison, 3), f"at three crashes alone: {alone}")
        law(crashes <= 20, f"found by halves: {crashes} crashes")


async def _suspected(storage: Storage, begin: float = T0) -> list[Chunk]:
    """The lane's chunks, after two workers that had them were lost."""
    await lease_all(storage, begin, lease=1)
    await lease_all(storage, begin + 1, lease=1)
    return await lease_all(storage, begin + 2, lease=1)


async def _work(storage: Storage, chunk: Chunk, poison: set[int], now: float) -> list[int] | None:
    """Send a chunk as a worker would; which group killed it (nothing marked: none), or None if it lived."""
    left = [position for position, state in enumerate(chunk.states) if state == 0]
    while left:
        group = left[: chunk.part or len(left)]
        left = left[len(group) :]
        if chunk.part:
            await storage.settle([Settlement(chunk.id, chunk.epoch, marks=group)], now)
        if any(chunk.ids[position] in poison for position in group):
            return [chunk.ids[position] for position in group] if chunk.part else []
        sent = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): group}, attempts=len(group))
        law(await storage.settle([sent], now) != [Settled(True)], "its holder settles")
    return None
