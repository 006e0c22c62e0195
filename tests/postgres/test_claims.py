"""Many at once on one PostgreSQL database: no chunk is two workers', no stalled worker settles, and all sums are right
in the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from fanout.core.model import Target
from fanout.core.records import Release, RetryRow, Settled, Settlement
from fanout.errors import UsageError
from fanout.plugin import Storage, StorageContext
from fanout.storage.postgres.store import PostgresStorage
from fanout.storage.sql import expansion
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, done, lease_all, post, settle_all, standing, submission
from tests.postgres.books import unbalanced
from tests.postgres.conftest import Databases, opened

pytestmark = [pytest.mark.anyio, pytest.mark.external]

CONTEXT = StorageContext(clock=VirtualClock(T0), chunk=5)


@asynccontextmanager
async def several(databases: Databases, n: int, pool: int = 2) -> AsyncIterator[list[PostgresStorage]]:
    """So many openers of one database, whose books must balance in the end."""
    name = await databases.lend()
    try:
        async with AsyncExitStack() as stack:
            made = [opened(databases.server, name, CONTEXT, pool=pool) for _ in range(n)]
            yield [await stack.enter_async_context(each) for each in made]
        assert await unbalanced(databases.server.url(name)) == {}, "the books balance"
    finally:
        await databases.give_back(name)


async def test_leasers_share_no_chunk(databases: Databases) -> None:
    async with several(databases, 6) as storages:
        await storages[0].register([device("alice", str(i)) for i in range(5)], T0)
        subs = [submission() for _ in range(120)]
        await storages[0].put(subs, T0)
        leased: Counter[int] = Counter()
        settled = 0

        async def worker(number: int, storage: Storage) -> None:
            nonlocal settled
            while chunks := await lease_all(storage, worker=f"w{number}", limit=15):
                leased.update(chunk.id for chunk in chunks)
                answers = await settle_all(storage, chunks)
                settled += sum(not answer.stale for answer in answers)

        while settled < len(subs):
            await asyncio.gather(*(worker(i, storage) for i, storage in enumerate(storages)))
        assert set(leased.values()) == {1}, "each chunk was leased once"
        assert len(leased) == len(subs)
        for sub in subs:
            status = await standing(storages[0], sub.id)
            assert (status.state, status.counts["accepted"]) == ("done", 5)


async def test_gathering_shares_no_retry(databases: Databases) -> None:
    """Retry rows that several workers gather at once end once each."""
    async with several(databases, 6) as storages:
        await storages[0].register([device(f"user-{i}", str(i)) for i in range(40)], T0)
        subs = [submission(Target.users([f"user-{i}" for i in range(40)])) for _ in range(10)]
        await storages[0].put(subs, T0)
        while chunks := await lease_all(storages[0]):
            later = [
                [RetryRow(p, T0 + 10 + p * 700, 2, "backoff", "busy") for p in range(len(chunk.ids))]
                for chunk in chunks
            ]
            await storages[0].settle(
                [Settlement(chunk.id, chunk.epoch, retries=rows) for chunk, rows in zip(chunks, later, strict=True)],
                T0,
            )
            await storages[0].expand("default", "apns", T0, ahead=100)
        now = T0 + 10_000

        async def worker(number: int, storage: Storage) -> None:
            while (await storage.waiting("default", "apns", now))[0][1]:
                chunks = await lease_all(storage, now, worker=f"w{number}", limit=30)
                await settle_all(storage, chunks, now)

        await asyncio.gather(*(worker(i, storage) for i, storage in enumerate(storages)))
        for sub in subs:
            assert (await standing(storages[0], sub.id, now)).counts["accepted"] == 40


async def test_a_stalled_worker_is_fenced(databases: Databases) -> None:
    async with several(databases, 2) as (slow, quick):
        await slow.register([device("alice", str(i)) for i in range(5)], T0)
        sub = submission()
        await post(slow, sub)
        (stalled,) = await lease_all(slow, worker="slow")
        assert await lease_all(quick, T0 + 29, worker="quick") == [], "a lease runs to its end"
        (taken,) = await lease_all(quick, T0 + 30, worker="quick")
        assert taken.id == stalled.id
        assert taken.epoch > stalled.epoch
        assert await slow.extend([(stalled.id, stalled.epoch, T0 + 60)]) == [stalled.id]
        assert (await slow.settle([done(stalled)], T0 + 31))[0].stale
        assert (await standing(quick, sub.id)).counts["accepted"] == 0
        assert not (await quick.settle([done(taken)], T0 + 31))[0].stale
        assert (await slow.settle([done(stalled)], T0 + 32))[0].stale, "nor when all has ended"


async def test_of_two_settlers_one_wins(databases: Databases) -> None:
    """The same lease settled from two connections at once: one is stored, and the other learns that there is nothing
    left."""
    async with several(databases, 2) as storages:
        await storages[0].register([device("alice", str(i)) for i in range(5)], T0)
        for _ in range(10):
            sub = submission()
            await post(storages[0], sub)
            (chunk,) = await lease_all(storages[0])
            answers = await asyncio.gather(
                *(storage.settle([done(chunk)], T0) for storage in storages), return_exceptions=True
            )
            stored = [answer for answer in answers if not isinstance(answer, BaseException) and not answer[0].stale]
            assert len(stored) == 1
            assert stored[0][0].finished == sub.id
            status = await standing(storages[0], sub.id)
            assert (status.counts["accepted"], status.attempts) == (5, 5)


async def test_two_take_over_one_lost_lease(databases: Databases) -> None:
    async with several(databases, 4) as storages:
        await storages[0].register([device("alice", str(i)) for i in range(5)], T0)
        subs = [submission() for _ in range(20)]
        await storages[0].put(subs, T0)
        lost = await lease_all(storages[0], worker="dead")
        assert len(lost) == 20
        taken = await asyncio.gather(
            *(lease_all(storage, T0 + 30, worker=f"w{i}", limit=20) for i, storage in enumerate(storages))
        )
        rest = await lease_all(storages[0], T0 + 30, worker="rest")
        ids = [chunk.id for chunks in (*taken, rest) for chunk in chunks]
        assert sorted(ids) == sorted(chunk.id for chunk in lost), "each is taken over once"
        before = {chunk.id: chunk.epoch for chunk in lost}
        assert all(chunk.epoch > before[chunk.id] for chunks in (*taken, rest) for chunk in chunks)


async def test_one_collapse_key_from_several(databases: Databases) -> None:
    """Put side by side, each but the last supersedes or is superseded: one is left."""
    async with several(databases, 4) as storages:
        await storages[0].register([device("alice", str(i)) for i in range(5)], T0)
        subs = [submission(collapse_key="score") for _ in range(24)]
        await asyncio.gather(*(storages[i % 4].put([sub], T0) for i, sub in enumerate(subs)))
        states = Counter([(await standing(storages[0], sub.id)).state for sub in subs])
        assert states == {"cancelled": 23, "running": 1}


async def test_one_idempotency_key_from_several(databases: Databases) -> None:
    async with several(databases, 4) as storages:
        await storages[0].register([device("alice", str(i)) for i in range(5)], T0)
        for key in ("a", "b", "c"):
            subs = [submission(idempotency_key=key, digest=b"same") for _ in range(12)]
            puts = await asyncio.gather(*(storages[i % 4].put([sub], T0) for i, sub in enumerate(subs)))
            assert len({put.id for (put,) in puts}) == 1, "all are told the same id"
            assert sum(not put.replayed for (put,) in puts) == 1
            assert {put.total for (put,) in puts} == {5}


async def test_a_pause_leaves_nothing_leased_behind_its_back(databases: Databases) -> None:
    """Once a pause has been answered with 0, nobody is given anything; what it counted, somebody holds."""
    async with several(databases, 3) as storages:
        await storages[0].register([device("alice", str(i)) for i in range(5)], T0)
        for round_ in range(8):
            sub = submission()
            await post(storages[0], sub)
            leasing = asyncio.gather(*(lease_all(storage, worker="w") for storage in storages[1:]))
            held = await (
                storages[0].pause_binding("default", "apns", T0)
                if round_ % 2
                else storages[0].pause("default", sub.id, T0)
            )
            chunks = [chunk for chunks in await leasing for chunk in chunks]
            assert len(chunks) == held
            await settle_all(storages[1], chunks)
            await storages[0].resume_binding("default", "apns", T0)
            await storages[0].resume("default", sub.id, T0)
            await settle_all(storages[0], await lease_all(storages[0]))
            assert (await standing(storages[0], sub.id)).counts["accepted"] == 5


@pytest.mark.parametrize("target", ["users", "topic"])
async def test_a_pause_between_the_choice_of_an_expansion_and_its_lock_holds_it(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """It was expanded all the same: a broadcast was sent though it was paused; and of a list, chunks that waited for
    their turn were not found in the lane of the paused, so that their turn never came."""
    async with several(databases, 2) as storages:
        await storages[0].register([device(f"u{i}", str(i), tags=["news"]) for i in range(30)], T0)
        sub = submission(Target.topic("news") if target == "topic" else Target.users([f"u{i}" for i in range(30)]))
        await storages[0].put([sub], T0)
        hold, paused = expansion.hold, []

        async def slow(db: Any, notifications: Any, *, wait: bool = True) -> list[int]:
            if notifications and not paused:
                paused.append(True)
                await storages[1].pause("default", sub.id, T0)
            return await hold(db, notifications, wait=wait)

        await settle_all(storages[0], await lease_all(storages[0]))
        monkeypatch.setattr(expansion, "hold", slow)
        await storages[0].expand("default", "apns", T0, ahead=1)
        assert paused
        assert not await lease_all(storages[0]), "it is paused"
        await storages[0].resume("default", sub.id, T0)
        await _drain(storages[0], [sub.id])
        assert (await standing(storages[0], sub.id)).counts["accepted"] == 30


async def test_any_mix_ends_with_right_sums(databases: Databases, request: pytest.FixtureRequest) -> None:
    """Six openers put, expand, lease, settle, cancel, pause and resume as they please; nobody waits for ever, and all
    adds up."""
    rounds = 400 if request.config.getoption("--faults") else 60
    async with several(databases, 6) as storages:
        users = [f"user-{i}" for i in range(30)]
        await storages[0].register([device(user, str(i), tags=["news"]) for i, user in enumerate(users)], T0)
        ids: list[str] = []
        await asyncio.gather(*(_mix(i, storage, ids, users, rounds) for i, storage in enumerate(storages)))
        await _drain(storages[0], ids)
        for id in ids:
            status = await standing(storages[0], id)
            assert status.state in ("done", "cancelled"), f"nothing is left: {status}"
        finished = [event for event in await storages[0].events(limit=10**6) if event.kind == "notification.finished"]
        assert Counter(event.data["notification"] for event in finished) == Counter(ids), "each is told once"


async def _mix(number: int, storage: Storage, ids: list[str], users: list[str], rounds: int) -> None:
    rng = random.Random(number)
    hands: list[Settlement] = []

    async def put() -> None:
        target = rng.choice(
            [Target.user(rng.choice(users)), Target.users(rng.sample(users, 25)), Target.topic("news"), Target.all()]
        )
        subs = [submission(target, collapse_key=rng.choice([None, None, "k"])) for _ in range(rng.randint(1, 3))]
        await storage.put(subs, T0)
        ids.extend(sub.id for sub in subs)

    async def expand() -> None:
        await storage.expand("default", "apns", T0, ahead=rng.randint(1, 20))

    async def lease() -> None:
        chunks = await lease_all(
            storage,
            T0 + rng.choice([0, 0, 40]),
            worker=f"w{number}",
            limit=rng.randint(1, 40),
            lease=rng.choice([5, 60]),
        )
        for chunk in chunks:
            settlement = done(chunk)
            left = settlement.results["accepted", ""]
            if left and rng.random() < 0.4:
                settlement.retries = [RetryRow(left.pop(), T0 + rng.choice([-5, 5]), 2, "backoff", "busy")]
            elif len(left) > 1 and rng.random() < 0.4:
                left.pop()
                settlement.release = Release(T0 + rng.choice([-5, 5]), "gate", "busy")
            hands.append(settlement)

    async def settle() -> None:
        rng.shuffle(hands)
        taken, hands[:] = hands[:8], hands[8:]
        await storage.settle(taken, T0)

    async def extend() -> None:
        lost = set(await storage.extend([(hand.chunk, hand.epoch, T0 + 60) for hand in hands]))
        hands[:] = [hand for hand in hands if hand.chunk not in lost]

    async def cancel() -> None:
        if ids:
            await storage.cancel("default", rng.choice(ids), T0)

    async def pause() -> None:
        if ids:
            await (storage.pause if rng.random() < 0.5 else storage.resume)("default", rng.choice(ids), T0)

    async def binding() -> None:
        await (storage.pause_binding if rng.random() < 0.3 else storage.resume_binding)("default", "apns", T0)

    verbs: list[Callable[[], Awaitable[None]]] = [put, expand, lease, settle, extend, cancel, pause, binding]
    for verb in rng.choices(verbs, weights=[2, 3, 6, 6, 2, 1, 1, 1], k=rounds):
        try:
            await verb()
        except UsageError as error:
            # Two of this worker's own leases of one chunk, of which the later one was settled first.
            assert "settled once" in str(error)
            hands.clear()


async def _drain(storage: Storage, ids: list[str]) -> None:
    now = T0 + 100
    await storage.resume_binding("default", "apns", now)
    for id in ids:
        await storage.resume("default", id, now)
    for _ in range(1000):
        await storage.expand("default", "apns", now, ahead=1000)
        chunks = await lease_all(storage, now, worker="last")
        await settle_all(storage, chunks, now)
        if not chunks and not any((await storage.waiting("default", "apns", now))[0]):
            return
    raise AssertionError("there is no end of it")


async def test_leases_end_by_the_databases_clock(databases: Databases) -> None:
    """A machine whose clock is an hour off takes nothing over before its time, and has its own leases for as long as it
    asked."""
    name = await databases.lend()
    location = databases.server.url(name).partition(":")[2]
    right, ahead = VirtualClock(time.time()), VirtualClock(time.time() + 3600)
    async with (
        PostgresStorage(location, StorageContext(clock=right)) as one,
        PostgresStorage(location, StorageContext(clock=ahead)) as other,
    ):
        await one.register([device("alice", "1")], right.now())
        await post(one, submission(now=right.now(), ttl=1e6), right.now())
        (mine,) = await lease_all(one, right.now(), worker="w1", lease=60)
        assert mine.lease_until == right.now() + 60
        assert await lease_all(other, ahead.now(), worker="w2", lease=60) == []
        assert await other.extend([(mine.id, mine.epoch, ahead.now() - 1)]) == []
        (taken,) = await lease_all(other, ahead.now(), worker="w2", lease=60)
        assert taken.lease_until == ahead.now() + 60
        assert await lease_all(one, right.now(), worker="w1", lease=60) == []
        assert await settle_all(one, [mine], right.now()) == [Settled(True)]
        assert [each.stale for each in await settle_all(other, [taken], ahead.now())] == [False]
    await databases.give_back(name)
