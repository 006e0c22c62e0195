"""The laws of the fleet: living workers, lost leases, the division of a rate, and one token for all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fanout.core.fleet import SharedToken, WorkerNote
from fanout.core.records import Release, Settled, Settlement
from fanout.core.states import Waiting
from fanout.plugin import Storage, fleet_of
from fanout.testing.storage_kit import T0, Kit, device, done, law, lease_all, post, settle_all, standing, submission


def note(id: str, **more: Any) -> WorkerNote:
    """A worker with all that a worker can say of itself."""
    bindings = ("default/apns", "shop/fcm")
    made = WorkerNote(id=id, host="host-" + id, pid=7, version="1.2", started_at=T0 - 0.5, bindings=bindings)
    return replace(made, **more)


async def workers_are_known(kit: Kit) -> None:
    """A worker is known from its first beat until it leaves or is buried, with its own data and the leases that it
    holds."""
    async with kit.open(chunk=2) as storage:
        fleet = fleet_of(storage)
        law(await fleet.workers(T0) == [], "at first there is nobody")
        law(await fleet.beat(note("w2"), T0, T0 + 10) is False, "a first heartbeat is of an unknown worker")
        law(await fleet.beat(note("w1"), T0 + 1, T0 + 11) is False, "nor is another")
        law(await fleet.beat(note("w2"), T0 + 2, T0 + 12) is True, "a second one is of a known worker")
        found = await fleet.workers(T0 + 3)
        notes = [note("w1", seen_at=T0 + 1, until=T0 + 11), note("w2", seen_at=T0 + 2, until=T0 + 12)]
        law(found == notes, f"workers are listed by id, as they described themselves: {found}")
        await storage.register([device("alice", str(i)) for i in range(5)], T0)
        await post(storage, submission())
        first, second, third = await lease_all(storage, T0 + 3, worker="w1", lease=30)
        law(await _leases(storage, T0 + 3) == {"w1": 3, "w2": 0}, "each with the leases that it holds")
        await settle_all(storage, [first], T0 + 3)
        law(await _leases(storage, T0 + 3) == {"w1": 2, "w2": 0}, "and not with those that have ended")
        law(await _leases(storage, T0 + 33) == {"w1": 0, "w2": 0}, "or run out")
        await settle_all(storage, [second, third], T0 + 4)
        found = await fleet.workers(T0 + 50)
        law([each.id for each in found] == ["w1", "w2"], "one that has not been heard of is listed still")
        law(found[0].until == T0 + 11, "with the time at which its heartbeat ran out")
        await fleet.leave("w1")
        await fleet.leave("w1")
        await fleet.leave("stranger")
        law([each.id for each in await fleet.workers(T0 + 4)] == ["w2"], "a leaving worker is forgotten; twice is once")
        law(await fleet.beat(note("w1"), T0 + 5, T0 + 15) is False, "and is new when it comes back")
        await fleet.beat(note("w2", bindings=()), T0 + 6, T0 + 8)
        (w2,) = [each for each in await fleet.workers(T0 + 6) if each.id == "w2"]
        law((w2.bindings, w2.until) == ((), T0 + 8), "the last beat is what counts")


async def leases_of_the_dead_are_due(kit: Kit) -> None:
    """Burying makes the leases of a worker due whose heartbeat has run out, and of no other; they are taken over as at
    any crash."""
    async with kit.sent(8, sub := submission(), chunk=4) as (storage, _):
        fleet = fleet_of(storage)
        await fleet.beat(note("w1"), T0, T0 + 10)
        await fleet.beat(note("w2"), T0, T0 + 10)
        (lost,) = await lease_all(storage, T0, worker="w1", limit=4)
        (kept,) = await lease_all(storage, T0, worker="w2", limit=4)
        await fleet.beat(note("w2"), T0 + 9, T0 + 19)
        law(await fleet.bury(T0 + 9.5) == [], "no worker is buried before its heartbeat has run out")
        law(await lease_all(storage, T0 + 9.5, worker="w2") == [], "and nothing taken over")
        before = await storage.changes()
        law(await fleet.bury(T0 + 10) == ["w1"], "a silent worker is buried when its heartbeat has run out")
        law(await storage.changes() != before, "so that workers look for what is due")
        law([each.id for each in await fleet.workers(T0 + 10)] == ["w2"], "and forgotten")
        law(await fleet.bury(T0 + 10) == [], "once")
        waiting, _ = await storage.waiting("default", "apns", T0 + 10)
        law(waiting[1], "its leases are due")
        (taken,) = await lease_all(storage, T0 + 10, worker="w2")
        law(taken.id == lost.id and taken.epoch > lost.epoch, "and leased by the next, of a later epoch")
        steps = await storage.explain(sub.id, lost.ids[0])
        law(
            steps is not None
            and [(step.what, step.worker) for step in steps if step.what == "taken over"] == [("taken over", "w1")],
            f"as taken over from it: {steps}",
        )
        law(await storage.extend([(kept.id, kept.epoch, T0 + 40)]) == [], "the living keep what they hold")

        await fleet.beat(note("w3"), T0 + 11, T0 + 21)
        await storage.settle([done(kept)], T0 + 11)
        await fleet.leave("w2")
        law(await lease_all(storage, T0 + 11, worker="w3") == [], "a leaving worker gives away only released chunks")
        (taken,) = await lease_all(storage, T0 + 41, worker="w3", lease=30)
        law(taken.part == 2, f"two crashes are two crashes, however they were noticed: {taken.part} of 4")
        await fleet.bury(T0 + 50)
        (taken,) = await lease_all(storage, T0 + 50, worker="w4")
        law(taken.part == 2, "a worker that is buried between two groups implicates no delivery")
        await fleet.beat(note("w5"), T0 + 5000, T0 + 5010)
        law(await fleet.bury(T0 + 4991) == [], "a clock may be a little ahead")
        law(await fleet.bury(T0 + 4990) == ["w5"], "heartbeats by a clock that was set back since count for nothing")
        await storage.settle([done(taken)], T0 + 51)
        law((await standing(storage, sub.id, T0 + 51)).finished_at == T0 + 51, "in the end all is delivered")


async def a_buried_worker_is_fenced(kit: Kit) -> None:
    """A worker that was buried while it stood still learns so with its next beat, and can settle nothing that was taken
    over."""
    async with kit.sent(8, sub := submission(), chunk=4) as (storage, _):
        fleet = fleet_of(storage)
        await fleet.beat(note("w1"), T0, T0 + 10)
        first, second = await lease_all(storage, T0, worker="w1", lease=60)
        law(await fleet.bury(T0 + 12) == ["w1"], "it stood still for longer than its heartbeat")
        (taken,) = await lease_all(storage, T0 + 12, worker="w2", limit=4)
        law(await fleet.beat(note("w1"), T0 + 13, T0 + 23) is False, "its next beat tells it")
        mine = {first.id: first, second.id: second}
        stale, other = mine.pop(taken.id), mine.popitem()[1]
        lost = await storage.extend([(stale.id, stale.epoch, T0 + 40), (other.id, other.epoch, T0 + 40)])
        law(lost == [stale.id], f"it keeps what nobody has taken over, and hears what it has lost: {lost}")
        law(await lease_all(storage, T0 + 14, worker="w2") == [], "chunks that it keeps are no longer due")
        answers = await storage.settle([done(stale), done(other)], T0 + 14)
        law(answers[0] == Settled(True), "a lost lease cannot be settled")
        law(not answers[1].stale, "a kept one can")
        await storage.settle([done(taken)], T0 + 15)
        status = await standing(storage, sub.id, T0 + 15)
        law((status.counts["accepted"], status.finished_at) == (8, T0 + 15), f"each is counted once: {status}")


async def a_rate_is_divided(kit: Kit) -> None:
    """Never more than the rate is out; newcomers get the rest, then their fair part; idle, leaving and dead workers
    give theirs back."""
    async with kit.open() as storage:
        fleet = fleet_of(storage)

        async def ask(
            worker: str, now: float, *, held: float = 0.0, demand: float = math.inf, rate: float = 600.0
        ) -> float:
            return await fleet.share(worker, "quota", rate=rate, held=held, demand=demand, now=now)

        law(await ask("w1", T0) == 0.0, "a worker that is not known gets nothing")
        for worker in ("w1", "w2", "w3"):
            await fleet.beat(note(worker), T0, T0 + 10)
        law(await ask("w1", T0) == 600.0, "alone it gets all of it")
        law(await ask("w2", T0) == 0.0, "a newcomer gets what is left")
        law(await ask("w1", T0 + 1, held=600.0) == 300.0, "when the first asks again, it gets its fair part")
        law(await ask("w2", T0 + 1) == 0.0, "its former part counts until it has reported a lower one")
        law(await ask("w1", T0 + 2, held=300.0) == 300.0, "as it has when it asks the next time")
        law(await ask("w2", T0 + 2) == 300.0, "and then the newcomer has its own")
        law(await ask("w3", T0 + 2, demand=50.0) == 0.0, "one who needs little waits for it as well")
        law(await ask("w1", T0 + 3, held=300.0) == 275.0, "and gets no more than it can use")
        law(await ask("w2", T0 + 3, held=300.0) == 275.0, "so that the others have the rest")
        await ask("w1", T0 + 4, held=275.0)
        law(await ask("w3", T0 + 4, demand=50.0) == 25.0, "as soon as it is there")
        await ask("w2", T0 + 4, held=275.0)
        law(await ask("w3", T0 + 5, held=25.0, demand=50.0) == 50.0, "all of it")
        law(await fleet.share("w3", "other", rate=9.0, held=0.0, demand=math.inf, now=T0 + 5) == 9.0, "as another one")
        law(await ask("w1", T0 + 5, held=275.0, demand=0.0) == 0.0, "a worker without demand gives its part back")
        await ask("w1", T0 + 6, demand=0.0)
        law(await ask("w2", T0 + 6, held=275.0) == 550.0, "for the others to use")
        await fleet.leave("w3")
        law(await ask("w2", T0 + 7, held=550.0) == 600.0, "and so does who leaves")
        await fleet.beat(note("w1"), T0 + 9, T0 + 19)
        law(await ask("w1", T0 + 9) == 0.0, "while a worker counts as alive, so does its part")
        law(await ask("w1", T0 + 10) == 600.0, "when its heartbeat has run out, its part is free")
        law(await ask("w2", T0 + 10, held=0.0) == 0.0, "and it gets nothing more")
        await fleet.bury(T0 + 11)
        await fleet.beat(note("w2"), T0 + 12, T0 + 22)
        law(await ask("w2", T0 + 12) == 0.0, "buried and back, it begins anew")
        law(await ask("w1", T0 + 12, held=600.0, rate=400.0) == 200.0, "a lowered rate holds from the next asking")
        law(await ask("w2", T0 + 12, rate=400.0) == 0.0, "and the excess counts until then")


async def one_token_stands(kit: Kit) -> None:
    """Of tokens that are offered within the spacing, the first is every worker's; a token that is over is no
    worker's."""
    async with kit.open() as storage:
        fleet = fleet_of(storage)
        first, second = SharedToken("first", T0, T0 + 3600), SharedToken("second", T0 + 1, T0 + 3601)
        law(await fleet.token("apns", T0) is None, "at first there is none")
        law(await fleet.token("apns", T0, offer=first, spacing=1200) == first, "the first offer becomes the token")
        law(await fleet.token("apns", T0 + 1, offer=second, spacing=1200) == first, "a later caller gets the same")
        law(await fleet.token("apns", T0 + 2) == first, "and so does who only asks")
        law(await fleet.token("fcm", T0 + 2) is None, "another name is another token")
        late = SharedToken("late", T0 + 1200, T0 + 4800)
        behind = SharedToken("behind", T0 - 300, T0 + 3300)
        law(await fleet.token("apns", T0 - 300, offer=behind, spacing=1200) == first, "one that is behind is ignored")
        law(await fleet.token("apns", T0 + 1199, offer=late, spacing=1200) == first, "within the spacing it stays")
        law(await fleet.token("apns", T0 + 1200, offer=late, spacing=1200) == late, "after it the next may stand")
        law(await fleet.token("apns", T0 + 1201) == late, "for everyone")
        law(await fleet.token("apns", T0 + 4800) is None, "a token that is over does not")
        after = SharedToken("after", T0 + 4800, T0 + 8400)
        law(await fleet.token("apns", T0 + 4800, offer=after, spacing=9e9) == after, "and is in nobody's way")
        if not storage.shared:
            return
        async with kit.open_again() as other:
            law(await fleet_of(other).token("apns", T0 + 4801) == after, "it is there for other processes")
            law(await fleet_of(other).beat(note("w1"), T0, T0 + 10) is False, "workers are known")
            law([each.id for each in await fleet.workers(T0)] == ["w1"], "to one another")


async def a_workers_leases_are_named(kit: Kit) -> None:
    """A worker is told of every running lease that names it, by chunk and epoch, and can give back one that it never
    heard of."""
    async with kit.open(chunk=2) as storage:
        fleet = fleet_of(storage)
        await storage.register([device("alice", str(i)) for i in range(6)], T0)
        law(await fleet.holdings("w1", T0) == [], "at first it holds nothing")
        await post(storage, submission())
        heard, unheard = await lease_all(storage, T0, worker="w1", limit=4)
        (other,) = await lease_all(storage, T0, worker="w2")
        mine = {(heard.id, heard.epoch), (unheard.id, unheard.epoch)}
        law(set(await fleet.holdings("w1", T0 + 1)) == mine, "then what it leased, and nothing of another's")
        law(await fleet.holdings("w2", T0 + 1) == [(other.id, other.epoch)], "each its own")
        await storage.settle([done(heard)], T0 + 1)
        law(await fleet.holdings("w1", T0 + 2) == [(unheard.id, unheard.epoch)], "and not what has ended")
        back = Settlement(unheard.id, unheard.epoch, release=Release(T0 + 2, Waiting.READY.value))
        stale = Settlement(unheard.id, unheard.epoch - 1, release=Release(T0 + 2, Waiting.READY.value))
        law([each.stale for each in await storage.settle([stale], T0 + 2)] == [True], "of another epoch it keeps it")
        law([each.stale for each in await storage.settle([back], T0 + 2)] == [False], "of this one it gives it back")
        law(await fleet.holdings("w1", T0 + 2) == [], "and holds it no more")
        (taken,) = await lease_all(storage, T0 + 2, worker="w2", lease=30)
        law((taken.id, taken.part) == (unheard.id, 0) and taken.epoch > unheard.epoch, "another has it, as no crash")
        await storage.extend([(other.id, other.epoch, T0 + 40)])
        law(await fleet.holdings("w2", T0 + 32) == [(other.id, other.epoch)], "a lease that has run out is free")


async def _leases(storage: Storage, now: float) -> dict[str, int]:
    return {each.id: each.leases for each in await fleet_of(storage).workers(now)}
