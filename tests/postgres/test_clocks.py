"""Machines whose clocks are wrong, on one database: it is the database's that decides what is due, expired, over and
dead."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

import fanout.sync
from fanout.core.delivery import Delivery
from fanout.core.endpoint import EndpointState
from fanout.core.model import Notification
from fanout.core.policy import Policy, Retention
from fanout.core.records import Submission
from fanout.engine import Engine, EngineOptions, membership
from fanout.engine.engine import Role
from fanout.plugin import ACCEPTED, Misconfigured, Outcome, Scope, StorageContext, Unavailable
from fanout.storage.postgres.store import PostgresStorage
from fanout.sync import transaction
from fanout.testing.scripted import Script, ScriptedMessage, ScriptedTransport
from tests.postgres.conftest import Databases

pytestmark = [pytest.mark.anyio, pytest.mark.external]

HOURS = 3600.0
HI = Notification(title="Hi", ttl=HOURS)
POLICY = Policy(backoff_base=0.05, probe=0.3, request_timeout=5.0, heartbeat=2.0)


class Off:
    """A machine's clock that is `seconds` ahead; `step` sets it anew."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return time.time() + self.seconds

    def monotonic(self) -> float:
        return time.monotonic()

    def step(self, seconds: float) -> None:
        self.seconds += seconds


class Machines:
    def __init__(self, url: str) -> None:
        self.url = url

    @asynccontextmanager
    async def engine(
        self,
        clock: Off,
        script: Script | None = None,
        *,
        role: Role = "both",
        policy: Policy = POLICY,
        retention: Retention | None = None,
    ) -> AsyncIterator[tuple[Engine, ScriptedTransport]]:
        context = StorageContext(clock=clock, retention=retention or Retention())
        storage = PostgresStorage(self.url.partition(":")[2], context)
        transport = ScriptedTransport(*([script] if script else []))
        pair = {("default", "push"): transport}
        engine = Engine(storage, pair, EngineOptions(clock=clock, rng=random.Random(), policy=policy, role=role))
        async with engine:
            yield engine, transport


@pytest.fixture
async def machines(databases: Databases) -> AsyncIterator[Machines]:
    name = await databases.lend()
    yield Machines(databases.server.url(name))
    await databases.give_back(name)


async def _register(engine: Engine, *addresses: str, **more: Any) -> None:
    for address in addresses:
        await engine.endpoints.register(user="alice", binding="push", address=address, **more)


@pytest.mark.parametrize("off", [8 * HOURS, -8 * HOURS])
async def test_one_worker_of_three_is_wrong_and_ends_nothing(machines: Machines, off: float) -> None:
    """It ends nothing as expired, prunes nothing and buries nobody; and the others do not bury it."""

    async def unwell(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Unavailable("unknown", reason="503")

    slow = replace(POLICY, backoff_base=1800.0)
    keep = Retention(notifications=HOURS, events=HOURS, quarantine=HOURS, idempotency_keys=HOURS)
    async with (
        machines.engine(Off(), unwell, policy=slow) as (one, _),
        machines.engine(Off(1.0), unwell, policy=slow) as (_, _),
    ):
        await _register(one, "phone")
        await _register(one, "tablet", expires_at=time.time() + HOURS)
        done = await one.send(HI, "user:nobody", idempotency_key="k")
        assert (await done.wait(60)).state == "done"
        retried = await one.send(HI, "user:alice")
        scheduled = await one.send(HI, "user:alice", at=time.time() + HOURS / 2)
        async with asyncio.timeout(120):
            while (await retried.status()).pending_by_reason.get("backoff") != 2:
                await asyncio.sleep(0.01)
        async with machines.engine(Off(off), policy=slow, retention=keep) as (wrong, transport):
            for _ in range(3):
                # What its own loops do each second and each minute, and each beat.
                assert not await wrong.storage.expire(wrong._clock.now(), limit=100)
                await wrong.storage.prune(wrong._clock.now(), limit=100)
                assert await wrong.storage.fleet.bury(wrong._clock.now()) == []
                await wrong._membership._round()
            assert {each.until > wrong._clock.now() for each in await wrong.workers()} == {True}
            assert len(await one.workers()) == 3
            assert {each.until > one._clock.now() for each in await one.workers()} == {True}
            assert transport.sends == [], "nothing is due before its time"
        assert (await retried.status()).counts["pending"] == 2
        assert (await scheduled.status()).state == "scheduled"
        assert (await done.status()).state == "done", "its retention is not over"
        assert [each.state async for each in one.endpoints.list(state=None)] == [EndpointState.ACTIVE] * 2


async def test_a_gate_that_a_wrong_clock_closes_stays_for_as_long_as_it_says(machines: Machines) -> None:
    refuse = True
    refused = 0

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        nonlocal refused
        refused += refuse
        return Misconfigured("InvalidProviderToken", Scope.BINDING, named=False) if refuse else ACCEPTED

    def longest() -> float:
        """Seconds: the first refusal closes the gate, and each further one at most doubles that."""
        return POLICY.probe * 2 ** (refused - 1)

    async with machines.engine(Off()) as (right, transport):
        await _register(right, "phone")
        async with machines.engine(Off(8 * HOURS), answer) as (wrong, _):
            right._settler.states[0].pause(True)
            receipts = []
            async with asyncio.timeout(120):
                while not (gates := await right.gates()):
                    # Either may lease one, and the right one's senders are held: one of them comes to the wrong one.
                    receipts.append(await wrong.send(HI, "user:alice"))
                    await asyncio.sleep(0.01)
            assert gates[0].until - right._clock.now() <= longest()  # as its worker has said it
            refuse = False
        right._settler.states[0].pause(False)
        for receipt in receipts:
            assert (await right.wait(receipt.id, 60)).counts["accepted"] == 1
        # One that follows leaves the first probe to the worker that closed it.
        follows = membership._GRACE * right._membership._every
        assert right._settler.states[0].gate.until - right._clock.now() <= longest() + follows
        assert refused < 10, "so that it is far below the eight hours"


@pytest.mark.parametrize("off", [600.0, -600.0, 8 * HOURS])
async def test_a_submitter_that_is_ahead_delays_nothing(machines: Machines, off: float) -> None:
    async with (
        machines.engine(Off(), role="work") as (worker, transport),
        machines.engine(Off(off), role="submit") as (submitter, _),
    ):
        await _register(worker, "phone")
        before = time.time()
        status = await (await submitter.send(HI, "user:alice")).wait(60)
        assert status.counts["accepted"] == 1
        assert before - 1 <= status.accepted_at <= time.time() + 1, "accepted when the database says"
        assert status.expires_at == pytest.approx(status.accepted_at + HOURS)
        at = time.time() + 0.5
        wish = await (await submitter.send(HI, "user:alice", at=at)).wait(60)
        assert wish.due_at == at, "a wish stays what it is"


@pytest.mark.parametrize("off", [600.0, -600.0, 8 * HOURS])
async def test_a_transaction_of_a_program_that_is_ahead_delays_nothing(
    machines: Machines, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`enqueue` without an engine: of its times only the wish counts, and how long the notification is to live."""
    real = time.time
    monkeypatch.setattr(transaction, "time", SimpleNamespace(time=lambda: real() + off))
    async with machines.engine(Off()) as (worker, transport):
        await _register(worker, "phone")

        def enqueue(at: float | None) -> str:
            with psycopg.connect(machines.url) as connection, connection.transaction():
                return fanout.sync.enqueue(connection, HI, "user:alice", at=at).id

        for at in (None, real() - 5.0, real() + 0.5, real() + 5.0 if off == 600.0 else None):
            before = real()
            id = await asyncio.to_thread(enqueue, at)
            status = await worker.wait(id, 60)
            assert status.counts["accepted"] == 1
            assert before - 1 <= status.accepted_at <= real() + 1
            assert status.due_at == max(at or 0.0, status.accepted_at)
            assert status.expires_at == pytest.approx(status.due_at + HOURS)


async def test_a_clock_that_is_set_is_nothing_to_the_queue(machines: Machines) -> None:
    clock = Off()
    async with machines.engine(clock, role="both") as (engine, transport):
        await _register(engine, "phone")
        late = await engine.send(HI, "user:alice", at=time.time() + HOURS / 2)
        for step in (8 * HOURS, -16 * HOURS, 8 * HOURS):
            clock.step(step)
            assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
        assert (await late.status()).state == "scheduled"


async def test_the_clock_is_read_anew_at_each_beat_and_each_new_connection(machines: Machines) -> None:
    context = StorageContext(clock=Off())
    async with PostgresStorage(machines.url.partition(":")[2], context) as storage:
        clock = storage.clock
        assert clock is not None
        assert not clock.stale  # type: ignore[attr-defined]
        told: list[float] = []
        real = type(clock).told

        def listen(self: Any, now: float, before: float) -> None:
            told.append(now)
            real(self, now, before)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(clock), "told", listen)
            await storage.changes()
            assert told == []
            storage._pool.drop_free()
            await storage.changes()
            assert len(told) == 1
            from fanout.core.fleet import WorkerNote

            now = clock.now()
            await storage.fleet.beat(WorkerNote(id="w", host="h", pid=1, version="1", started_at=now), now, now + 10)
            assert len(told) == 2
            assert abs(told[-1] - time.time()) < 5


def test_a_submission_says_by_its_times_what_was_wished() -> None:
    """`Statement` relies on it: only a wish makes the two differ."""
    from fanout.core.submission import submission_of

    def made(at: float | None) -> Submission:
        return submission_of(
            HI, "user:a", app="default", at=at, idempotency_key=None, now=1000.0, random=bytes(10), zero_ttl_grace=30.0
        )

    assert made(None).due_at == made(None).accepted_at
    assert made(2000.0).due_at == 2000.0
