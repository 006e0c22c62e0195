"""The fleet of many machines: what is asked at the same moment on many connections is answered one after the other."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from fanout.core.fleet import SharedToken, WorkerNote
from fanout.core.model import Notification
from fanout.engine import Engine, EngineOptions, Role
from fanout.plugin import Policy, Sealer, Storage, StorageContext
from fanout.registry import Registry
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedTransport
from fanout.testing.storage_kit import T0, device, lease_all, post, submission
from tests.postgres.conftest import Databases, opened
from tests.postgres.test_claims import several

pytestmark = [pytest.mark.anyio, pytest.mark.external]


CHILD = Path(__file__).parents[1] / "engine" / "fleet_child.py"


def note(id: str) -> WorkerNote:
    return WorkerNote(id=id, host="h", pid=1, version="1", started_at=T0, bindings=("default/apns",))


async def test_at_no_moment_is_more_than_the_rate_out(databases: Databases) -> None:
    async with several(databases, 6) as storages:
        rng = random.Random(7)
        held = [0.0] * len(storages)
        for number, storage in enumerate(storages):
            await storage.fleet.beat(note(f"w{number}"), T0, T0 + 10)

        async def work(number: int, storage: Storage) -> None:
            for _ in range(25):
                demand = rng.choice([0.0, 20.0, 300.0, math.inf])
                held[number] = await storage.fleet.share(
                    f"w{number}", "quota", rate=600.0, held=held[number], demand=demand, now=T0 + 1
                )
                assert sum(held) <= 600.0001

        await asyncio.gather(*(work(number, storage) for number, storage in enumerate(storages)))
        for _ in range(4):
            for number, storage in enumerate(storages):
                held[number] = await storage.fleet.share(
                    f"w{number}", "quota", rate=600.0, held=held[number], demand=math.inf, now=T0 + 2
                )
        assert held == pytest.approx([100.0] * 6)


async def test_of_tokens_offered_at_once_one_stands(databases: Databases) -> None:
    async with several(databases, 6) as storages:
        for round in range(3):
            now = T0 + 1200 * round
            offers = [SharedToken(f"{round}-{number}", now, now + 3600) for number in range(24)]
            found = await asyncio.gather(
                *(
                    storages[number % 6].fleet.token("apns", now, offer=offer, spacing=1200)
                    for number, offer in enumerate(offers)
                )
            )
            assert len({token.text for token in found if token is not None}) == 1
            assert found[0] in offers


async def test_who_beats_while_it_is_being_buried_is_one_or_the_other(databases: Databases) -> None:
    async with several(databases, 4) as storages:
        await storages[0].register([device("alice", str(i)) for i in range(5)], T0)
        for round in range(20):
            now = T0 + 100 * round
            await post(storages[0], submission(now=now), now)
            await storages[0].fleet.beat(note("w"), now, now + 10)
            (chunk,) = await lease_all(storages[0], now, worker="w", lease=60)
            known, *buried = await asyncio.gather(
                storages[0].fleet.beat(note("w"), now + 20, now + 30),
                *(storage.fleet.bury(now + 20) for storage in storages[1:]),
            )
            assert sum("w" in dead for dead in buried) <= 1
            if any("w" in dead for dead in buried) and known:
                # It beat before it was buried, but by a time at which it was dead: then it was heard of, and is not
                # buried.
                raise AssertionError("it was told that it lives, and buried for what it had said before")
            await storages[0].fleet.beat(note("w"), now + 20, now + 30)
            due = await lease_all(storages[1], now + 21, worker="other")
            assert [each.id for each in due] == ([] if known else [chunk.id])
            await storages[0].cancel("default", chunk.notification, now + 21)
            await lease_all(storages[1], now + 90, worker="end")


async def test_a_token_is_sealed_with_the_address_key(databases: Databases) -> None:
    name = await databases.lend()
    clear = StorageContext(clock=VirtualClock(T0))
    sealed = dataclasses.replace(clear, sealer=Sealer([bytes(range(32))]))
    try:
        token = SharedToken("very-secret-token", T0, T0 + 3600)
        async with opened(databases.server, name, sealed) as storage:
            assert await storage.fleet.token("apns", T0, offer=token) == token
            assert await storage.fleet.token("apns", T0) == token
            connection = await asyncpg.connect(databases.server.url(name))
            try:
                text = await connection.fetchval("SELECT text FROM fanout.token")
            finally:
                await connection.close()
            assert "secret" not in text
    finally:
        await databases.give_back(name)


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


async def test_a_killed_and_a_stopped_worker_are_succeeded_within_a_heartbeat(
    databases: Databases, tmp_path: Path
) -> None:
    name = await databases.lend()
    url = databases.server.url(name)
    policy = Policy(lease=60.0, heartbeat=1.0)

    def engine(role: Role) -> Engine:
        storage = Registry().make_storage(url, StorageContext(clock=Clock()))
        transports = {("default", "push"): ScriptedTransport()}
        return Engine(storage, transports, EngineOptions(clock=Clock(), rng=random.Random(), policy=policy, role=role))

    async with engine("submit") as submitter:
        for number in range(20):
            await submitter.endpoints.register(user="alice", binding="push", address=f"phone-{number}")
        for how in (signal.SIGKILL, signal.SIGSTOP):
            log = tmp_path / how.name
            log.touch()
            receipt = await submitter.send(Notification(title="Hi"), "user:alice")
            words = [sys.executable, str(CHILD), url, str(log), "60"]
            child = await asyncio.to_thread(subprocess.Popen, words)
            try:
                while not log.read_text():
                    await asyncio.sleep(0.01)
                child.send_signal(how)
                began = time.monotonic()
                async with engine("work"):
                    status = await receipt.wait(45)
                assert status.counts["accepted"] == 20
                assert time.monotonic() - began < 45, "not the minute of the lease"
            finally:
                child.kill()
                child.wait()
    await databases.give_back(name)
