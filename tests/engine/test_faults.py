"""What a full disk, a broken database, a jumping clock and a wrong topic do to the engine."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
from rig import FAST, fresh_storage, register, running

from fanout.core.endpoint import EndpointState
from fanout.core.model import Notification
from fanout.engine import Engine, EngineOptions
from fanout.errors import StorageError, StorageFull
from fanout.plugin import ACCEPTED, Gone, Storage
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")


class Failing:
    """A storage of which chosen methods fail a number of times."""

    def __init__(self, storage: Storage, **failures: list[Any]) -> None:
        self._storage = storage
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name not in self._failures:
            return method

        async def failing(*args: Any, **more: Any) -> Any:
            if self._failures[name]:
                raise self._failures[name].pop(0)
            return await method(*args, **more)

        return failing

    async def __aenter__(self) -> Failing:
        await self._storage.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._storage.__aexit__(*exc)


async def test_a_full_disk_refuses_the_send_and_loses_nothing_before() -> None:
    storage: Any = Failing(fresh_storage(), put=[])
    async with running(storage=storage) as (engine, transport):
        await register(engine, "alice", "phone")
        first = await engine.send(HI, "user:alice")
        storage._failures["put"].append(StorageFull("No room on the disk."))
        with pytest.raises(StorageFull):
            await engine.send(HI, "user:alice")
        third = await engine.send(HI, "user:alice")

        assert (await first.wait(60)).counts["accepted"] == 1
        assert (await third.wait(60)).counts["accepted"] == 1
        assert len(transport.sends) == 2


async def test_a_full_disk_stops_sending_until_results_can_be_stored() -> None:
    full: list[Exception] = [StorageFull("No room on the disk.")] * 2
    storage: Any = Failing(fresh_storage(), settle=full)
    async with running(storage=storage) as (engine, transport):
        transport.capacities[""] = 10
        for n in range(50):
            await register(engine, f"u{n}", f"d{n}")
        asked: list[tuple[bool, int]] = []
        settle = storage.settle

        async def watched(*arguments: Any) -> Any:
            asked.append((bool(full), len(transport.sends)))
            return await settle(*arguments)

        storage.settle = watched

        status = await (await engine.send(HI, "all")).wait(60)

        assert not full
        refused = [sent for failed, sent in asked if failed]
        stored = next(sent for failed, sent in asked if not failed)
        assert stored - refused[0] <= 10, "only what was under way when it was refused"
        assert status.counts["accepted"] == 50
        assert len(transport.sends) == 50, "nothing was sent twice"


async def test_a_broken_database_stops_everything_and_says_so() -> None:
    storage: Any = Failing(fresh_storage(), settle=[StorageError("disk I/O error")])
    async with running(storage=storage) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        with pytest.raises(StorageError, match="I/O"):
            await receipt.wait(60)
        with pytest.raises(StorageError, match="takes nothing more"):
            await engine.send(HI, "user:alice")
        with pytest.raises(StorageError, match="I/O"):
            await engine.failed()


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_jumps_loses_and_repeats_nothing(jump: float) -> None:
    """Leases are kept by the monotonic clock; an hour either way is within the TTL."""
    held = asyncio.Event()

    class Jumping(VirtualClock):
        offset = 0.0

        def now(self) -> float:
            return time.time() + self.offset

        def monotonic(self) -> float:
            return time.monotonic()

    async def answer(message: object, delivery: object) -> Any:
        await held.wait()
        return ACCEPTED

    clock = Jumping()
    transport = ScriptedTransport(answer)  # type: ignore[arg-type]
    transport.capacities[""] = 5
    engine = Engine(
        fresh_storage(), {("default", "push"): transport}, EngineOptions(clock=clock, rng=random.Random(1), policy=FAST)
    )
    async with engine:
        for n in range(40):
            await register(engine, f"u{n}", f"d{n}")
        receipt = await engine.send(HI, "all")
        while len(transport.sends) < 5:
            await asyncio.sleep(0.001)
        clock.offset = jump
        held.set()
        status = await receipt.wait(60)

    assert status.counts["accepted"] == 40
    assert len(transport.sends) == 40


async def test_a_wrong_topic_does_not_empty_the_directory() -> None:
    """Every device "dead" at once means that we are wrong: none is believed, and most of them wait until it is
    mended."""
    wrong = True
    async with running(lambda m, d: Gone("BadDeviceToken", certain=False) if wrong else ACCEPTED) as (
        engine,
        transport,
    ):
        for n in range(500):
            await register(engine, f"u{n}", f"d{n}")
        live = engine.live()
        receipt = await engine.send(HI, "all")
        async for event in live:
            if event.kind == "alarm":
                assert "purge guard" in event.data["reason"]
                break
        wrong = False
        status = await receipt.wait(60)
        purged = [endpoint.id async for endpoint in engine.endpoints.list(state=EndpointState.GONE)]

        assert purged == []
        (refused,) = status.reasons["rejected"].items()
        assert refused[0] == "BadDeviceToken (not believed)"
        assert status.counts["accepted"] == 500 - refused[1]
        assert status.counts["accepted"] > 0


@pytest.mark.parametrize("backend", ["memory"], indirect=True)
async def test_a_cancellation_of_the_work_that_a_loop_waits_for_ends_the_engine_aloud_and_not_the_host() -> None:
    storage: Any = Failing(fresh_storage(), settle=[asyncio.CancelledError()])
    async with running(storage=storage) as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        with pytest.raises(StorageError, match="CancelledError"):
            await receipt.wait(60)
        assert isinstance(engine.fault, asyncio.CancelledError)
