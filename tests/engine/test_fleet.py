"""Several workers on one file: who is dead is succeeded, who stood still is fenced; one rate and one gate for all."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from rig import SystemClock, make_storage, register
from rig import running as running_alone

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.engine import Engine, FleetLink
from fanout.plugin import (
    ACCEPTED,
    Misconfigured,
    Outcome,
    Policy,
    Scope,
    SharedToken,
    Storage,
    StorageContext,
    Throttled,
)
from fanout.registry import Registry
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")]
HI = Notification(title="Hi")
QUICK = Policy(
    backoff_base=0.02, backoff_throttled=0.02, probe=0.5, request_timeout=2.0, lease=60.0, heartbeat=1.0, ramp=0.01
)
"""A heartbeat of a second, and leases of a minute: whoever takes over within seconds has not waited for the lease."""


@pytest.fixture(autouse=True)
def backend(tmp_path: Path, no_blocking_call: None) -> Iterator[None]:
    """One file for all engines of a test."""
    token = make_storage.set(lambda: opened(tmp_path / "fleet.db"))
    yield
    make_storage.reset(token)


def opened(path: Path) -> Storage:
    return Registry().make_storage(f"sqlite:{path}", StorageContext(clock=SystemClock()))


def running(*arguments: Any, **named: Any) -> Any:
    """An engine of the rig, with chance of its own: of two workers of one process the name differs by that."""
    return running_alone(*arguments, rng=random.Random(), **named)


async def until(holds: Callable[[], Any], seconds: float = 120.0) -> None:
    """Until it does. An awaitable is awaited."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def child(tmp_path: Path, pause: float) -> AsyncIterator[tuple[subprocess.Popen[str], str, Path]]:
    """A worker in a process of its own, its id, and the file in which it writes what it sends."""
    log = tmp_path / f"sent-{next(_numbers)}"
    log.touch()
    words = [
        sys.executable,
        str(Path(__file__).with_name("fleet_child.py")),
        f"sqlite:{tmp_path}/fleet.db",
        str(log),
        str(pause),
    ]
    process = await asyncio.to_thread(subprocess.Popen, words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, (await asyncio.to_thread(process.stdout.readline)).strip(), log
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await asyncio.to_thread(process.communicate)


_numbers = itertools.count()


async def stop_between_commits(process: subprocess.Popen[str], path: Path) -> None:
    """Stop it where it does not hold the lock of the file: nobody could write until it goes on. It has stopped when all
    of its threads have: one that waits for a processor in a call of the system may still take the lock there."""

    def free() -> bool:
        connection = apsw.Connection(str(path))
        try:
            connection.execute("BEGIN IMMEDIATE; ROLLBACK")
        except apsw.BusyError:
            return False
        finally:
            connection.close()
        return True

    def stopped_and_free() -> bool:
        process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it has ended"
        return free()

    while not await asyncio.to_thread(stopped_and_free):
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.01)


def sent(log: Path) -> list[str]:
    """The notifications of its sends."""
    return log.read_text().split()


async def names(engine: Engine) -> set[str]:
    return {worker.id for worker in await engine.workers()}


async def test_a_killed_worker_is_succeeded_within_its_heartbeat(tmp_path: Path) -> None:
    async with running(policy=QUICK, role="submit") as (submitter, _):
        await register(submitter, "alice", *(f"phone-{n}" for n in range(30)))
        receipt = await submitter.send(HI, "user:alice")
        async with child(tmp_path, 60.0) as (process, name, log):
            await until(lambda: len(sent(log)) == 2)
            (known,) = await submitter.workers()
            assert (known.id, known.pid, known.leases) == (name, process.pid, 1)
            assert known.bindings == ("default/push",)
            process.kill()
            async with running(policy=QUICK, role="work") as (engine, transport):
                began = time.monotonic()
                status = await receipt.wait(60)
                assert time.monotonic() - began < 30, "not the minute of the lease"
                assert status.counts["accepted"] == 30
                assert transport.calls == 30
                assert await names(submitter) == {engine.worker}, "the dead is buried"
            steps = await submitter.explain(receipt.id, 1)
            assert [step.worker for step in steps if step.what == "taken over"] == [name]
        assert await names(submitter) == set(), "who ends in order says so"


async def test_a_worker_that_stood_still_believes_in_nothing(tmp_path: Path) -> None:
    async with running(policy=QUICK, role="submit") as (submitter, _):
        await register(submitter, "alice", *(f"phone-{n}" for n in range(100)))
        receipt = await submitter.send(HI, "user:alice")
        async with child(tmp_path, 0.05) as (process, name, log):
            await until(lambda: len(sent(log)) >= 10)
            await stop_between_commits(process, tmp_path / "fleet.db")
            async with running(policy=QUICK, role="work") as (engine, _):
                status = await receipt.wait(60)
                assert status.counts["accepted"] == 100
                assert await names(submitter) == {engine.worker}
                before = len(sent(log))
                process.send_signal(signal.SIGCONT)

                async def back() -> bool:
                    return name in await names(submitter)

                await until(back)
                again = await submitter.send(HI, "user:alice")
                assert (await again.wait(60)).counts["accepted"] == 100
            # What was in its hands when it stopped was delivered by the other. It may have been about to begin one
            # send.
            assert sent(log).count(receipt.id) <= before + 1
            assert (await submitter.status(receipt.id)).counts["accepted"] == 100


class Wish:
    """A transport's part of a rate."""

    def __init__(self, wanted: float = math.inf, fellows: list[Wish] | None = None) -> None:
        self.wanted = wanted
        self.share = 0.0
        self.most = 0.0
        """The most that was out at any moment, of this one and its fellows."""
        self._fellows = fellows if fellows is not None else []
        self._fellows.append(self)

    def demand(self) -> float:
        return self.wanted

    def grant(self, share: float) -> None:
        self.share = share
        self.most = max(self.most, sum(each.share for each in self._fellows))


@asynccontextmanager
async def dividing(wish: Wish, path: Path, rate: float = 600.0, policy: Policy = QUICK) -> AsyncIterator[Engine]:
    storage = opened(path)
    link = FleetLink(storage, SystemClock())
    link.divide("project", rate, wish)
    async with running(storage=storage, policy=policy, role="work", link=link) as (engine, _):
        yield engine


async def test_one_rate_is_divided_among_the_workers(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    wishes: list[Wish] = []
    for _ in range(3):
        Wish(fellows=wishes)
    async with dividing(wishes[0], path):
        assert wishes[0].share == 600, "granted before the first delivery"
        async with dividing(wishes[1], path):
            await until(lambda: wishes[0].share == wishes[1].share == 300)
            async with dividing(wishes[2], path):
                await until(lambda: {wish.share for wish in wishes} == {200.0})
                wishes[0].wanted = 20.0
                await until(lambda: [wish.share for wish in wishes] == [20.0, 290.0, 290.0])
                wishes[2].share = 0.0  # it ends, and uses nothing any more
            await until(lambda: [wish.share for wish in wishes[:2]] == [20.0, 580.0])
            wishes[1].share = 0.0
        wishes[0].wanted = math.inf
        await until(lambda: wishes[0].share == 600)
    assert max(wish.most for wish in wishes) <= 600.000001, "never more than the rate is out"


async def test_who_is_short_asks_at_once(tmp_path: Path) -> None:
    wish = Wish(6.0)
    storage = opened(tmp_path / "fleet.db")
    link = FleetLink(storage, SystemClock())
    short = link.divide("project", 600.0, wish)
    async with running(storage=storage, policy=Policy(heartbeat=600.0), role="work", link=link):
        await until(lambda: wish.share == 6.0)
        wish.wanted = math.inf
        short()
        began = time.monotonic()
        await until(lambda: wish.share == 600.0)
        assert time.monotonic() - began < 60.0, "and does not wait for the next round"


class Gateway:
    """Both workers' gateway: what it answers, and to whom it was asked to deliver."""

    def __init__(self) -> None:
        self.answer: Outcome = ACCEPTED
        self.calls: dict[str, int] = {"a": 0, "b": 0}

    def script(self, who: str) -> Callable[[ScriptedMessage, Delivery], Outcome]:
        def script(message: ScriptedMessage, delivery: Delivery) -> Outcome:
            self.calls[who] += 1
            return self.answer

        return script


async def told(engine: Engine, scope: Scope) -> bool:
    """Whether other workers can read that a gate of this scope is closed."""
    return any(note.scope == scope.value for note in await engine.gates())


@pytest.mark.parametrize("scope", [Scope.QUOTA, Scope.BINDING, Scope.APP])
async def test_a_gate_of_the_account_holds_for_all_workers(scope: Scope) -> None:
    gateway = Gateway()
    a, b = ScriptedTransport(gateway.script("a")), ScriptedTransport(gateway.script("b"))
    seconds = 4.0
    policy = dataclasses.replace(QUICK, probe=seconds)
    async with running(transports={("default", "push"): a}, policy=policy) as (first, _):
        await register(first, "alice", *(f"phone-{n}" for n in range(5)))
        gateway.answer = (
            Throttled(seconds, scope, "QUOTA_EXCEEDED") if scope is not Scope.BINDING else Misconfigured("bad key")
        )
        receipt = await first.send(HI, "user:alice")
        await until(lambda: not first._settler.states[0].gate.is_open)
        # A worker follows what it is told; the endpoint that accused first waits for less time than the gate is closed.
        await until(lambda: told(first, scope))
        async with running(transports={("default", "push"): b}, policy=policy) as (second, _):
            gate = second._settler.states[0].gate
            await until(lambda: not gate.is_open)
            assert gateway.calls["b"] == 0, "it has asked nobody"
            assert gate.until >= first._settler.states[0].gate.until, "the one that closed it probes first"
            (note,) = [note for note in await second.gates() if note.scope == scope.value]
            assert note.worker == first.worker, "what it follows it does not say again"
            gateway.answer = ACCEPTED
            assert (await receipt.wait(60)).counts["accepted"] == 5
            await until(lambda: gate.ready(time.time()))
            again = await second.send(HI, "user:alice")
            assert (await again.wait(60)).counts["accepted"] == 5


async def test_a_part_of_the_rate_that_is_used_up_holds_nobody_else() -> None:
    gateway = Gateway()
    a, b = ScriptedTransport(gateway.script("a")), ScriptedTransport(gateway.script("b"))
    async with running(transports={("default", "push"): a}, policy=QUICK) as (first, _):
        await register(first, "alice", "phone")
        gateway.answer = Throttled(30.0, Scope.RATE, "rate_per_minute")
        receipt = await first.send(HI, "user:alice")
        await until(lambda: not first._settler.states[0].gate.is_open)
        gateway.answer = ACCEPTED
        async with running(transports={("default", "push"): b}, policy=QUICK) as (second, _):
            assert (await (await second.send(HI, "user:alice")).wait(60)).counts["accepted"] == 1
            assert second._settler.states[0].gate.is_open
            assert gateway.calls == {"a": 1, "b": 1}
        await first.cancel(receipt.id)


class Watch(SystemClock):
    """A wall clock that is set anew for all."""

    offset = 0.0

    @classmethod
    def now(cls) -> float:  # type: ignore[override]
        return time.time() + cls.offset


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_a_clock_that_is_set_buries_nobody(
    seconds: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Watch, "offset", 0.0)
    monkeypatch.setattr("rig.SystemClock", Watch)
    wish = Wish()
    storage = make_storage.get()()
    link = FleetLink(storage, Watch())
    link.divide("project", 600.0, wish)
    async with (
        running(policy=QUICK, role="work") as (first, _),
        running(storage=storage, policy=QUICK, role="work", link=link) as (second, _),
    ):
        everybody = {first.worker, second.worker}

        async def steady() -> bool:
            now = time.monotonic()
            return all(now - engine._membership._steady_since > QUICK.heartbeat for engine in (first, second))

        await until(steady)
        assert await names(first) == everybody
        monkeypatch.setattr(Watch, "offset", seconds)
        rounds = [engine._membership._last for engine in (first, second)]
        await until(
            lambda: all(
                engine._membership._steady_since > began for engine, began in zip((first, second), rounds, strict=True)
            )
        )
        await until(steady)
        assert {worker.id for worker in await first.workers()} == everybody
        assert all(abs(worker.seen_at - Watch.now()) < 30 for worker in await first.workers())
        assert wish.share == 600
    assert "has not been heard of" not in caplog.text


async def test_no_token_from_the_future_is_handed_to_a_transport(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with opened(tmp_path / "fleet.db") as storage:
        link = FleetLink(storage, clock)
        clock.step(8 * 3600.0)
        ahead = SharedToken("ahead", clock.now(), clock.now() + 3600)
        assert await link.token("x", offer=ahead, spacing=1200.0) == ahead
        clock.step(-8 * 3600.0)
        assert await link.token("x") is None
        right = SharedToken("right", clock.now(), clock.now() + 3600)
        assert await link.token("x", offer=right, spacing=1200.0) == right
        assert await link.token("x") == right
