"""Several processes on one SQLite file: real ones, told what to do through pipes, and killed without warning."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from fanout.core.model import Target
from fanout.core.records import Settlement
from fanout.plugin import StorageContext
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, done, lease_all, post, settle_all, standing, submission

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0), chunk=5)

SCRIPT = """
import asyncio, json, sys
from fanout.core.model import Target
from fanout.plugin import StorageContext
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing import storage_kit
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, done, lease_all, settle_all, submission

storage_kit._numbers = iter(range(int(sys.argv[2]) * 1_000_000, 2**40))
held = []

async def lease(storage, limit):
    chunks = await lease_all(storage, worker=sys.argv[2], limit=limit)
    held.extend(chunks)
    return [(chunk.id, chunk.epoch, len(chunk.ids)) for chunk in chunks]

async def settle(storage):
    answers = await settle_all(storage, held)
    held.clear()
    return [answer.stale for answer in answers]

async def put(storage):
    sub = submission()
    await storage.put([sub], T0)
    return sub.id

async def put_for_ever(storage):
    while True:
        print(json.dumps(await put(storage)), flush=True)

async def busy(storage, n):
    '''Put, lease and settle side by side with another process; what this one put, and how much it settled.'''
    ids, settled = [], 0
    for _ in range(n):
        subs = [submission() for _ in range(3)]
        ids += [put.id for put in await storage.put(subs, T0)]
        chunks = await lease_all(storage, worker=sys.argv[2], limit=10)
        answers = await storage.settle([done(chunk) for chunk in chunks], T0)
        settled += sum(len(c.ids) for c, a in zip(chunks, answers) if not a.stale)
    return [ids, settled]

async def main():
    context = StorageContext(clock=VirtualClock(T0), chunk=5)
    async with SqliteStorage(sys.argv[1], context) as storage:
        print(json.dumps("open"), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, *arguments = json.loads(line)
            print(json.dumps(await globals()[name](storage, *arguments)), flush=True)

asyncio.run(main())
"""


class Other:
    """Another process with the same database open."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        assert process.stdout is not None
        self._lines = TextReceiveStream(process.stdout)
        self._rest = ""

    async def tell(self, *command: Any) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(json.dumps(command).encode() + b"\n")

    async def hear(self) -> Any:
        while "\n" not in self._rest:
            self._rest += await self._lines.receive()
        line, self._rest = self._rest.split("\n", 1)
        return json.loads(line)

    async def ask(self, *command: Any) -> Any:
        await self.tell(*command)
        return await self.hear()


@asynccontextmanager
async def other(path: Path, number: int = 2) -> AsyncIterator[Other]:
    async with await anyio.open_process([sys.executable, "-c", SCRIPT, str(path), str(number)], stderr=None) as process:
        try:
            made = Other(process)
            assert await made.hear() == "open"
            yield made
        finally:
            if process.returncode is None:
                process.kill()


async def test_work_is_seen_and_leases_are_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CONTEXT) as storage, other(path) as b:
        await storage.register([device("alice", str(i)) for i in range(10)], T0)
        before = await storage.changes()
        assert await storage.changes() == before
        id = await b.ask("put")
        assert await storage.changes() != before, "the other process's commit shows"
        assert (await storage.waiting("default", "apns", T0))[0] == [False, True, False]
        (mine,) = await lease_all(storage, limit=5)
        ((theirs, _, size),) = await b.ask("lease", 5)
        assert mine.id != theirs
        assert size == len(mine.ids) == 5
        assert await b.ask("lease", 5) == []
        await settle_all(storage, [mine])
        assert await b.ask("settle") == [False]
        assert (await standing(storage, id)).state == "done"


async def test_a_killed_worker_is_taken_over_and_a_stalled_one_fenced(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(5)], T0)
        sub = submission()
        await post(storage, sub)
        async with other(path) as b:
            ((chunk, epoch, _),) = await b.ask("lease", 5)
            b.process.kill()
            await b.process.wait()
        assert await lease_all(storage, T0 + 29) == [], "a dead worker's lease runs to its end"
        (taken,) = await lease_all(storage, T0 + 30)
        assert (taken.id, taken.epoch) == (chunk, epoch + 1)
        await storage.settle([Settlement(taken.id, taken.epoch, results={("accepted", ""): [0]})], T0 + 30)

        later = submission()
        await post(storage, later)
        async with other(path) as b:
            await b.ask("lease", 5)
            (again,) = [c for c in await lease_all(storage, T0 + 30) if c.notification == later.id]
            assert await b.ask("settle") == [True], "a worker that was only slow settles nothing"
            assert (await standing(storage, later.id)).counts["accepted"] == 0
            await storage.settle([done(again)], T0 + 31)


async def test_several_open_a_new_file_at_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        others: list[Other] = []
        for i in range(4):
            command = [sys.executable, "-c", SCRIPT, str(tmp_path / "x.db"), str(i)]
            others.append(Other(await stack.enter_async_context(await anyio.open_process(command, stderr=None))))
        try:
            assert [await each.hear() for each in others] == ["open"] * 4
            assert len({await each.ask("put") for each in others}) == 4
        finally:
            for each in others:
                each.process.kill()


async def test_two_processes_work_side_by_side(tmp_path: Path) -> None:
    """Neither starves, nothing is delivered twice, nothing is left."""
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(5)], T0)
        async with other(path, 2) as b, other(path, 3) as c:
            await b.tell("busy", 40)
            await c.tell("busy", 40)
            answers = [await b.hear(), await c.hear()]
        settled = sum(answer[1] for answer in answers)
        ids = [id for answer in answers for id in answer[0]]
        assert len(set(ids)) == 240
        while chunks := await lease_all(storage, T0, limit=1000):
            settled += sum(len(chunk.ids) for chunk in chunks)
            await settle_all(storage, chunks)
        assert settled == 240 * 5, "every delivery was settled once"
        for id in ids:
            status = await standing(storage, id)
            assert (status.state, status.counts["accepted"]) == ("done", 5)
        finished = [event for event in await storage.events(limit=10_000) if event.kind == "notification.finished"]
        assert sorted(event.data["notification"] for event in finished) == sorted(ids)


async def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    """Killed at some moment between acknowledgements, again and again: all of them are there, each notification
    whole."""
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(12)], T0)
    rng = random.Random(9)
    acknowledged: list[str] = []
    for cycle in range(6):
        async with other(path, 10 + cycle) as b:
            await b.tell("put_for_ever")
            acknowledged += [await b.hear() for _ in range(rng.randrange(1, 40))]
            b.process.kill()
            await b.process.wait()
    async with SqliteStorage(str(path), CONTEXT) as storage:
        for id in acknowledged:
            status = await standing(storage, id)
            assert (status.state, status.total) == ("running", 12)
        assert await storage.count_endpoints("default", Target.all()) == {"apns": 12}
