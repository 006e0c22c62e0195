"""Committing and delivering overlap: while one batch is being committed, batches that are committed go out, and none
goes out before its own commit."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from fanout import Notification
from fanout.bootstrap import SystemClock
from fanout.engine import Engine, EngineOptions, settler
from fanout.plugin import ACCEPTED, Delivery, Outcome, StorageContext
from fanout.storage.sqlite.operations import Database, Operation
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio


async def test_a_committed_batch_is_delivered_while_the_next_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    held, both, second = asyncio.Event(), asyncio.Event(), asyncio.Event()
    commit = threading.Event()
    write = Database.write

    def hold(self: Database, operations: Sequence[Operation]) -> bool:
        if any(sub.target.names == ("bob",) for each in operations if each.puts for sub in each.puts[0]):
            loop.call_soon_threadsafe(held.set)
            commit.wait(30)
        return write(self, operations)

    async def script(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if transport.sends[-1].address == "bob":
            second.set()
        elif len(transport.sends) == 1:
            await held.wait()  # so that the other device's turn comes while the next batch is being committed
        else:
            both.set()
        return ACCEPTED

    transport = ScriptedTransport(script, capacity=1)
    clock = SystemClock()
    storage = SqliteStorage(str(tmp_path / "x.db"), StorageContext(clock=clock))
    engine = Engine(storage, {("default", "scripted"): transport}, EngineOptions(clock=clock, rng=random.Random(1)))
    async with engine:
        for user, address in (("alice", "phone"), ("alice", "tablet"), ("bob", "bob")):
            await engine.endpoints.register(user=user, binding="scripted", address=address)
        monkeypatch.setattr(Database, "write", hold)
        monkeypatch.setattr(
            settler, "OVERDUE", 60.0
        )  # on a busy machine the commit may be held for longer than a second
        first = await engine.send(Notification(title="1"), "user:alice")
        later = asyncio.create_task(engine.send(Notification(title="2"), "user:bob"))
        try:
            await asyncio.wait_for(both.wait(), 20)
            assert not later.done()
            assert not second.is_set()
        finally:
            commit.set()
        await (await later).wait(60)
        await first.wait(60)
        assert second.is_set()
