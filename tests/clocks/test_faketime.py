"""Real processes whose clocks are ahead, behind, set while they run, or stopped: what others have accepted stays
theirs."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from fanout.bootstrap import SystemClock
from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.core.policy import Policy
from fanout.engine import Engine, EngineOptions
from fanout.engine.engine import Role
from fanout.plugin import ACCEPTED, Outcome, StorageContext, Unavailable
from fanout.registry import Registry
from fanout.testing.scripted import Script, ScriptedMessage, ScriptedTransport
from tests.postgres.conftest import Databases

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed: apt-get install faketime"),
]
CHILD = Path(__file__).with_name("child.py")
HOUR = 3600.0
HI = Notification(title="Hi", ttl=HOUR)
POLICY = Policy(backoff_base=0.05, heartbeat=2.0, request_timeout=5.0)


@cache
def _preloaded() -> str:
    """What the wrapper preloads, said to us, so that the clock may be changed while a process runs."""
    said = subprocess.run(["faketime", "-f", "+0", "env"], capture_output=True, text=True, check=True).stdout
    return next(line for line in said.splitlines() if line.startswith("LD_PRELOAD=")).partition("=")[2]


class Process:
    """`child.py` by a clock of its own: `offset` seconds from the machine's, to be changed at any time by `step`."""

    def __init__(self, folder: Path, what: str, location: str, offset: float) -> None:
        self._file = folder / f"clock-{random.getrandbits(32):08x}"
        self.step(offset)
        settings = {
            "LD_PRELOAD": _preloaded(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), what, location], env=os.environ | settings, stdout=subprocess.PIPE, text=True
        )

    def step(self, offset: float) -> None:
        self._file.write_text(f"{offset:+.0f}\n")

    async def line(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        said = await asyncio.to_thread(self.process.stdout.readline)
        assert said, f"it ended with {self.process.poll()}"
        return said.strip()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        # A process that is killed leaves these, and the next one with its number could not begin.
        for name in ("faketime_shm", "sem.faketime_sem"):
            Path(f"/dev/shm/{name}_{self.process.pid}").unlink(missing_ok=True)
        assert self.process.stdout is not None
        self.process.stdout.close()


@asynccontextmanager
async def child(folder: Path, what: str, location: str, offset: float) -> AsyncIterator[Process]:
    made = await asyncio.to_thread(Process, folder, what, location, offset)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.end)


def engine(location: str, script: Script | None = None, *, role: Role = "both", policy: Policy = POLICY) -> Engine:
    """One whose clock is right."""
    clock = SystemClock()
    transport = ScriptedTransport(*([script] if script else []))
    storage = Registry().make_storage(location, StorageContext(clock=clock))
    return Engine(
        storage,
        {("default", "push"): transport},
        EngineOptions(clock=clock, rng=random.Random(), policy=policy, role=role),
    )


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[str]:
    name = await databases.lend()
    yield databases.server.url(name)
    await databases.give_back(name)


async def beats(right: Engine, worker: str, count: int) -> None:
    """Until that worker has been heard of so many times more, having done all that it does each second meanwhile."""
    seen: set[float] = set()
    async with asyncio.timeout(60):
        while len(seen) <= count:
            seen |= {note.seen_at for note in await right.workers() if note.id == worker}
            await asyncio.sleep(0.01)


_BEHIND = pytest.param(
    -8 * HOUR, marks=pytest.mark.long("one that is ahead is tried; tests/postgres has one that is behind")
)


@pytest.mark.parametrize("off", [8 * HOUR, _BEHIND])
async def test_one_worker_of_three_is_wrong_from_its_boot(database: str, tmp_path: Path, off: float) -> None:
    """It ends nothing as expired, and buries nobody; nobody buries it, and it delivers like the others."""

    async def unwell(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Unavailable("unknown", reason="503")

    slow = Policy(backoff_base=1800.0, heartbeat=2.0, request_timeout=5.0)
    async with engine(database, unwell, policy=slow) as right, engine(database, unwell, policy=slow):
        await right.endpoints.register(user="alice", binding="push", address="phone")
        retried = await right.send(HI, "user:alice")
        scheduled = await right.send(HI, "user:alice", at=right._clock.now() + HOUR / 2)
        async with asyncio.timeout(120):
            while (await retried.status()).pending_by_reason.get("backoff") != 1:
                await asyncio.sleep(0.01)
        async with child(tmp_path, "work", database, off) as wrong:
            worker = await wrong.line()
            await beats(right, worker, 8)
            assert len(await right.workers()) == 3
            assert (await retried.status()).counts["pending"] == 1
            assert (await scheduled.status()).state == "scheduled"


@pytest.mark.parametrize("off", [600.0, -600.0])
async def test_a_submitter_that_is_off_delays_nothing(database: str, tmp_path: Path, off: float) -> None:
    async with engine(database) as right:
        await right.endpoints.register(user="alice", binding="push", address="phone")
        async with child(tmp_path, "submit", database, off) as submitter:
            id = await submitter.line()
            status = await right.wait(id, 60)
    assert status.counts["accepted"] == 1
    assert status.finished_at is not None
    assert abs(status.finished_at - status.accepted_at) < 60.0


async def test_a_worker_whose_clock_is_set_while_it_runs_goes_on(database: str, tmp_path: Path) -> None:
    """Both ways, and, as a suspend looks to it, stopped meanwhile."""
    async with engine(database, role="submit") as right:
        await right.endpoints.register(user="alice", binding="push", address="phone")
        late = await right.send(HI, "user:alice", at=right._clock.now() + HOUR / 2)
        async with child(tmp_path, "work", database, 0.0) as worker:
            await worker.line()
            for offset in (8 * HOUR, -8 * HOUR, 0.0):
                worker.process.send_signal(signal.SIGSTOP)
                worker.step(offset)
                worker.process.send_signal(signal.SIGCONT)
                receipt = await right.send(HI, "user:alice")
                assert await worker.line() == receipt.id
                assert (await receipt.wait(60)).counts["accepted"] == 1
        assert (await late.status()).state == "scheduled"


@pytest.mark.parametrize("killed", [True, False])
async def test_a_machine_that_boots_ahead_and_is_put_right_keeps_no_gate_shut(tmp_path: Path, killed: bool) -> None:
    """On one file, whose clock is the machine's: a gate that was to last half a second lasts that."""
    location = f"sqlite:{tmp_path}/fanout.db"
    async with engine(location, role="submit") as right:
        await right.endpoints.register(user="alice", binding="push", address="phone")
    async with child(tmp_path, "shut", location, 8 * HOUR) as ahead:
        id = await ahead.line()
        if not killed:
            async with engine(location, role="submit") as right, asyncio.timeout(60):
                before = (await right.status(id)).attempts
                ahead.step(0.0)
                while (await right.status(id)).attempts == before:
                    await asyncio.sleep(0.01)
    async with engine(location) as right:
        assert (await right.wait(id, 60)).counts["accepted"] == 1


async def test_a_clock_that_is_right_is_what_the_others_go_by(database: str) -> None:
    """The rig itself: where no clock is wrong, the same is delivered."""

    async def well(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return ACCEPTED

    async with engine(database, well) as right:
        await right.endpoints.register(user="alice", binding="push", address="phone")
        assert (await (await right.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
