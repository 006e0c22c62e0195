"""The laws of explaining: every decision about one delivery, in order, and none about its neighbours."""

from __future__ import annotations

from fanout.core.model import Target
from fanout.core.records import Release, RetryRow, Settlement, Step
from fanout.core.states import DOUBT
from fanout.plugin import Chunk, Storage
from fanout.testing.storage_kit import T0, Kit, device, done, known, law, lease_all, post, settle_all, submission


async def _steps(storage: Storage, id: str, endpoint: int) -> list[Step]:
    return known(await storage.explain(id, endpoint), "explain knows every notification that was put")


def _law(steps: list[Step], expected: list[Step], text: str) -> None:
    law(steps == expected, f"{text}: {steps} is not {expected}")


async def decisions_are_explained(kit: Kit) -> None:
    """From acceptance to the end: each lease, retry, hold and release that found the delivery open."""
    async with kit.sent(4, sub := submission()) as (storage, ids):
        law(await storage.explain("00000000-0000-7000-8000-000000000000", ids[0]) is None, "an unknown id has no steps")
        law(await storage.explain(sub.id, 10**9) == [], "nor has an endpoint to which there is no delivery")
        begun = [Step(T0, "accepted"), Step(T0, "queued", attempt=1)]
        for id in ids:
            _law(await _steps(storage, sub.id, id), begun, "accepted and queued")
        (chunk,) = await lease_all(storage, T0 + 1)
        begun.append(Step(T0 + 1, "leased", attempt=1, worker="w1"))
        first = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]}, attempts=2)
        busy, held = RetryRow(1, T0 + 9, 2, "backoff", "busy", holds=True), RetryRow(2, T0 + 7, 1, "backoff", "held")
        first.retries = [busy, held]
        await storage.settle([first], T0 + 2)
        back = Settlement(chunk.id, chunk.epoch, release=Release(T0 + 5, "gate", "503"))
        await storage.settle([back], T0 + 3)
        ends = [*begun, Step(T0 + 2, "ended", attempt=1, state="accepted")]
        retry = Step(T0 + 2, "retry", "busy", 2, T0 + 9, waiting="backoff")
        hold = Step(T0 + 2, "held", "held", 1, T0 + 7, waiting="backoff")
        park = Step(T0 + 3, "released", "503", 1, T0 + 5, waiting="gate")
        _law(await _steps(storage, sub.id, ids[0]), ends, "ended, and not given back")
        _law(await _steps(storage, sub.id, ids[1]), [*begun, retry], "a retry is of another attempt")
        _law(await _steps(storage, sub.id, ids[2]), [*begun, hold], "a delivery behind one is held, at the same time")
        _law(await _steps(storage, sub.id, ids[3]), [*begun, park], "given back, with reason and time")
        (chunk,) = await lease_all(storage, T0 + 5, worker="w2")
        await storage.settle([done(chunk, "rejected", "BadTopic")], T0 + 6)
        more = [Step(T0 + 5, "leased", attempt=1, worker="w2"), Step(T0 + 6, "ended", "BadTopic", 1, state="rejected")]
        _law(await _steps(storage, sub.id, ids[3]), [*begun, park, *more], "leased again, and ended")
        ends[-1] = Step(T0 + 3, "ended", attempt=1, state="accepted")
        _law(await _steps(storage, sub.id, ids[0]), ends, "an end is dated before the next lease of its chunk")
        chunks = await lease_all(storage, T0 + 9)
        await settle_all(storage, chunks, T0 + 10)
        for id, step, attempt in ((ids[1], retry, 2), (ids[2], hold, 1)):
            leased = Step(T0 + 9, "leased", attempt=attempt, worker="w1")
            ended = Step(T0 + 10, "ended", attempt=attempt, state="accepted")
            _law(await _steps(storage, sub.id, id), [*begun, step, leased, ended], "and then sent")
        await post(storage, kept := submission(now=T0 + 20))
        await storage.cancel("default", kept.id, T0 + 21)
        last = (await _steps(storage, kept.id, ids[0]))[-1]
        law(last == Step(T0 + 21, "ended", attempt=1, state="cancelled"), f"a cancel is an end: {last}")


async def crashes_are_explained(kit: Kit) -> None:
    """A lost worker is named; a delivery under way at the crash is suspected, and its neighbours are not."""
    async with kit.sent(3, sub := submission(ttl=1e6)) as (storage, ids):
        steps = [Step(T0, "accepted"), Step(T0, "queued", attempt=1)]
        workers = ["w1", "w2", "w3"]
        leased: list[Chunk] = []
        for i, worker in enumerate(workers):
            leased = await lease_all(storage, T0 + i, worker=worker, lease=1)
            if i:
                steps.append(Step(T0 + i, "taken over", attempt=1, worker=workers[i - 1]))
            steps.append(Step(T0 + i, "leased", attempt=1, worker=worker))
        (chunk,) = leased
        law(chunk.part == 2, "after two crashes the chunk is sent in halves")
        await storage.settle([Settlement(chunk.id, chunk.epoch, results={(DOUBT, ""): [2]}, marks=[0])], T0 + 2)
        await lease_all(storage, T0 + 3, worker="w4", lease=1)
        over = Step(T0 + 3, "taken over", attempt=1, worker="w3")
        again = Step(T0 + 3, "leased", attempt=1, worker="w4")
        _law(await _steps(storage, sub.id, ids[1]), [*steps, over, again], "a neighbour is taken over")
        _law(await _steps(storage, sub.id, ids[2]), [*steps, over, Step(T0 + 3, "ended", "unknown", 1, state="dead")],
             "a doubtful delivery has ended")  # fmt: skip
        suspect = [*steps, over, Step(T0 + 3, "suspected", attempt=1)]
        _law(await _steps(storage, sub.id, ids[0]), suspect, "a marked delivery is suspected")
        for now, worker in ((3, "w5"), (4, "w6"), (5, "w7")):
            for chunk in await lease_all(storage, T0 + now, worker=worker, lease=1) + await lease_all(
                storage, T0 + now, worker=worker, lease=1
            ):
                if ids[0] in chunk.ids and chunk.part == 1:
                    await storage.settle([Settlement(chunk.id, chunk.epoch, marks=[0])], T0 + now)
        later = (await _steps(storage, sub.id, ids[0]))[len(suspect) :]
        hunt = [(3, "leased", "w5"), (4, "taken over", "w5"), (4, "suspected", ""), (4, "leased", "w6")]
        hunt += [(5, "taken over", "w6"), (5, "suspected", ""), (5, "ended", "")]
        what = [(step.at - T0, step.what, step.worker) for step in later]
        law(what == hunt, f"the hunt is told to its end: {what}")
        end = (await _steps(storage, sub.id, ids[0]))[-1]
        law((end.state, end.reason) == ("dead", "poison"), f"which is poison: {end}")


async def pauses_are_explained(kit: Kit) -> None:
    """The pauses of a notification and of its binding are steps of the deliveries that had not ended by then."""
    async with kit.open() as storage:
        (one, two, three) = await storage.register(
            [device("alice", "1"), device("alice", "2"), device("alice", "3", binding="fcm")], T0
        )
        sub = submission()
        await storage.pause_binding("default", "apns", T0 - 5)
        await storage.resume_binding("default", "apns", T0 - 4)
        await post(storage, sub)
        (chunk,) = await lease_all(storage, T0 + 1)
        await storage.settle([Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [0]})], T0 + 2)
        await storage.settle([Settlement(chunk.id, chunk.epoch, release=Release(T0 + 3, "paused"))], T0 + 3)
        await storage.pause("default", sub.id, T0 + 4)
        await storage.pause("default", sub.id, T0 + 5)
        await storage.pause_binding("default", "apns", T0 + 6)
        await storage.resume("default", sub.id, T0 + 7)
        await storage.resume("default", sub.id, T0 + 8)
        await storage.resume_binding("default", "apns", T0 + 9)
        await storage.resume_binding("default", "apns", T0 + 10)
        await storage.cancel("default", sub.id, T0 + 11)
        await storage.pause_binding("default", "apns", T0 + 12)

        async def steps_of(endpoint: int) -> list[tuple[float, str]]:
            return [(step.at - T0, step.what) for step in await _steps(storage, sub.id, endpoint)]

        begun = [(0.0, "accepted"), (0.0, "queued")]
        law(
            await steps_of(one.id) == [*begun, (1.0, "leased"), (3.0, "ended")],
            f"an end before: {await steps_of(one.id)}",
        )
        mine = [(4.0, "paused"), (7.0, "resumed")]
        both = [mine[0], (6.0, "paused"), mine[1], (9.0, "resumed")]
        steps = [*begun, (1.0, "leased"), (3.0, "released"), *both, (11.0, "ended")]
        law(await steps_of(two.id) == steps, f"its own pauses and its binding's, each once: {await steps_of(two.id)}")
        law(
            await steps_of(three.id) == [*begun, *mine, (11.0, "ended")],
            f"of its own binding: {await steps_of(three.id)}",
        )
        parked = (await _steps(storage, sub.id, two.id))[3]
        law(parked.waiting == "ready", f"a pause is no reason of the chunk's: {parked}")


async def turns_are_explained(kit: Kit) -> None:
    """A delivery that was due later, held back, or cut from a topic says so."""
    async with kit.open(chunk=2) as storage:
        entered = await storage.register([device("alice", str(i), tags=["t"]) for i in range(10)], T0)
        long, later, wide = submission(), submission(due_at=T0 + 50), submission(Target.topic("t"))
        for sub in (long, later, wide):
            await post(storage, sub, T0)
        first, last = entered[0].id, entered[9].id
        begun = [Step(T0, "accepted"), Step(T0, "queued", attempt=1)]
        _law(await _steps(storage, long.id, first), begun, "the first chunks are due")
        queued = Step(T0, "queued", attempt=1, waiting="lane")
        _law(await _steps(storage, long.id, last), [begun[0], queued], "the last is not")
        law(await storage.explain(wide.id, first) == [], "an endpoint that is not expanded yet has no delivery")
        law(await storage.explain(later.id, first) == [], "nor what is scheduled")
        await storage.expand("default", "apns", T0 + 50, ahead=20)
        steps = [Step(T0, "accepted", until=T0 + 50, waiting="scheduled"), Step(T0 + 50, "queued", attempt=1)]
        _law(await _steps(storage, later.id, first), steps, "a schedule says until when it waited")
        steps = [Step(T0, "accepted"), Step(T0 + 50, "queued", attempt=1)]
        _law(await _steps(storage, wide.id, first), steps, "a topic is queued when it is cut")
