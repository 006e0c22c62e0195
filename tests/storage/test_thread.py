"""The SQLite storage's thread: commits are shared, faults are not, and it always ends."""

from __future__ import annotations

import asyncio
import sys
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

import anyio
import apsw
import pytest

from fanout.core.records import Settlement
from fanout.errors import StorageError, StorageRefused, UsageError
from fanout.plugin import StorageContext
from fanout.storage.sqlite import opening
from fanout.storage.sqlite.lock_yield import LockYield
from fanout.storage.sqlite.operations import Database, Operation
from fanout.storage.sqlite.store import SqliteStorage, Thread
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, lease_all, post, standing, submission

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0))


def at(folder: Path) -> SqliteStorage:
    return SqliteStorage(str(folder / "x.db"), CONTEXT)


def commits(storage: SqliteStorage) -> int:
    assert storage._database is not None
    return storage._database._commits


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "fanout-sqlite"]


async def test_callers_share_a_commit(tmp_path: Path) -> None:
    async with at(tmp_path) as storage:
        before = commits(storage)
        subs = [submission() for _ in range(200)]
        answers = await asyncio.gather(*(storage.put([sub], T0) for sub in subs))
        assert [answer[0].id for answer in answers] == [sub.id for sub in subs]
        assert commits(storage) - before < 100
        assert all([await storage.status(sub.id, 0.0) for sub in subs])


async def test_what_is_asked_in_one_turn_of_the_loop_is_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that the first of many callers wakes commits that one alone, and leases what they put in a commit of its
    own."""
    batches: list[int] = []
    begun = threading.Event()
    write = Database.write

    def written(self: Database, operations: Sequence[Operation]) -> bool:
        batches.append(len(operations))
        begun.set()
        return write(self, operations)

    async def slow() -> None:
        begun.wait(0.05)  # a turn of the loop that lasts: a thread that has been woken would have begun by then

    async with at(tmp_path) as storage:
        monkeypatch.setattr(Database, "write", written)
        put = storage.put([submission()], T0)
        await asyncio.gather(put, slow(), storage.put([submission()], T0), lease_all(storage))
        assert batches[0] >= 2


async def test_one_callers_fault_is_its_own(tmp_path: Path) -> None:
    async with at(tmp_path) as storage:
        await storage.register([device("alice", "1")], T0)
        await post(storage, submission())
        (chunk,) = await lease_all(storage)
        wrong = Settlement(chunk.id, chunk.epoch, results={("accepted", ""): [7]}, attempts=5)
        subs = [submission(app=f"new-{i}") for i in range(20)]
        calls = [storage.put([sub], T0) for sub in subs]
        middle = storage.settle([wrong], T0)
        same_id = storage.put([subs[0]], T0)
        answers = await asyncio.gather(*calls[:10], middle, same_id, *calls[10:], return_exceptions=True)
        assert isinstance(answers[10], UsageError)
        assert isinstance(answers[11], StorageError)
        assert "refused" in str(answers[11])
        good = answers[:10] + answers[12:]
        assert [answer[0].id for answer in good if isinstance(answer, list)] == [sub.id for sub in subs]
        assert (await standing(storage, chunk.notification)).attempts == 0


@pytest.mark.parametrize("pause", [0.0, 0.005])
@pytest.mark.parametrize("write", [False, True])
async def test_what_is_large_waits_for_what_is_small_and_takes_turns_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: bool, pause: float
) -> None:
    # What a commit leaves to other processes depends on the time it took; here each leaves the same.
    monkeypatch.setattr(LockYield, "pause", lambda self, now, held: pause)
    async with at(tmp_path) as storage:
        loop = asyncio.get_running_loop()
        offload = storage._offload
        assert isinstance(offload, Thread)
        order: list[str] = []
        begun, go = asyncio.Event(), threading.Event()
        later = loop.create_future()

        def named(name: str, *, large: bool = False) -> Operation:
            return Operation(lambda db: order.append(name), write=write, large=large)

        def hold(db: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            go.wait()

        def late(db: object) -> None:
            order.append("first large")
            # As if somebody had called while it ran.
            offload._queue.append((named("late"), later))

        held = asyncio.ensure_future(offload.run(Operation(hold, write=False)))
        await begun.wait()
        first = Operation(late, write=write, large=True)
        asked = asyncio.ensure_future(offload.run(first, named("second large", large=True), named("small")))
        await asyncio.sleep(0)
        go.set()
        await held
        await asked
        await later

        assert order[:2] == ["small", "first large"]
        # Where a write leaves the lock to other processes, both wait for the end of that, and share a commit.
        assert order[2:] == ["late", "second large"] or (write and pause)
        assert sorted(order) == ["first large", "late", "second large", "small"]


async def test_endpoints_are_resolved_in_parts_and_in_order(tmp_path: Path) -> None:
    async with at(tmp_path) as storage:
        made = await storage.register([device(f"user{n}", f"{n}") for n in range(2500)], T0)
        ids = array("q", [each.id for each in made])
        rows = await storage.resolve(ids, T0)

        assert [row.id for row in rows] == ids.tolist()
        assert [row.address for row in rows] == [f"token-{n}" for n in range(2500)]


async def test_a_cancelled_caller_harms_no_other(tmp_path: Path) -> None:
    async with at(tmp_path) as storage:
        subs = [submission() for _ in range(20)]
        tasks = [asyncio.ensure_future(storage.put([sub], T0)) for sub in subs]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        assert all([await storage.status(sub.id, 0.0) for sub in subs[1::2]])


async def test_closing_finishes_what_was_begun(tmp_path: Path) -> None:
    storage = at(tmp_path)
    subs = [submission() for _ in range(50)]
    async with storage:
        tasks = [asyncio.ensure_future(storage.put([sub], T0)) for sub in subs]
        await asyncio.sleep(0)
    assert len(await asyncio.gather(*tasks)) == 50
    assert not threads()
    for call in (storage.put([submission()], T0), storage.changes()):
        with pytest.raises(StorageError, match="not open"):
            await call
    await storage.__aexit__(None, None, None)
    async with storage:
        assert all([await storage.status(sub.id, 0.0) for sub in subs]), "it can be opened again"


async def test_closing_under_cancellation_still_closes(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with at(tmp_path) as storage:
            await post(storage, submission())
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not threads()

    async def hold() -> None:
        async with at(tmp_path):
            held.set()
            await asyncio.Event().wait()

    held = asyncio.Event()
    task = asyncio.ensure_future(hold())
    await held.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not threads()


async def test_a_refused_opening_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(StorageRefused):
        await SqliteStorage(str(tmp_path), CONTEXT).__aenter__()
    assert not threads()


class Death(BaseException):
    """What no handler expects."""


async def test_a_cancelled_opening_leaves_no_thread(tmp_path: Path) -> None:
    opening = asyncio.ensure_future(at(tmp_path).__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not threads()


async def test_a_dying_thread_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(self: Database, operations: object) -> None:
        raise Death("out of luck")

    storage = at(tmp_path)
    await storage.__aenter__()
    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", die)
        answers = await asyncio.gather(*(storage.put([submission()], T0) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, StorageError) for answer in answers)
    with pytest.raises(StorageError):
        await storage.put([submission()], T0)
    with pytest.raises(StorageError, match="ended with Death"):
        await storage.__aexit__(None, None, None)
    assert not threads()


async def test_what_a_dead_thread_was_about_to_be_asked_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Database, operations: object) -> None:
        raise Death("out of luck")

    storage = at(tmp_path)
    await storage.__aenter__()
    offload = storage._offload
    assert isinstance(offload, Thread)
    monkeypatch.setattr(Database, "write", die)
    asked = asyncio.ensure_future(storage.put([submission()], T0))
    await asyncio.sleep(0)
    with offload._ready:
        offload._queue.append((Operation(lambda db: None, write=True), asyncio.get_running_loop().create_future()))
        offload._ready.notify()
    assert offload._thread is not None
    offload._thread.join()  # the loop stands still meanwhile: what was asked is not handed over yet
    with pytest.raises(StorageError, match="ended before this was done"):
        await asked
    with pytest.raises(StorageError, match="ended with Death"):
        await storage.__aexit__(None, None, None)


async def test_another_holder_of_the_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers wait without blocking the loop, readers do not wait at all, and a lock held for ever is reported."""
    async with at(tmp_path) as storage:
        await storage.register([device("alice", "1")], T0)
        sub = submission()
        other = apsw.Connection(str(tmp_path / "x.db"))
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(storage.put([sub], T0))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("COMMIT")
        assert (await waiting)[0].id == sub.id

        monkeypatch.setattr(opening, "_BUSY_LIMIT", 0.05)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="Another process has held the lock"):
            await storage.put([submission()], T0)
        assert (await standing(storage, sub.id)).total == 1
        other.execute("ROLLBACK")
        other.close()
        await post(storage, submission())


async def test_a_program_that_forgets_to_close_ends(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from fanout.plugin import StorageContext
from fanout.storage.sqlite import worker
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock
worker._LOOK_AROUND = 0.05
asyncio.run(SqliteStorage(sys.argv[1], StorageContext(clock=VirtualClock())).__aenter__())
print("main ends")
"""
    done = await anyio.run_process([sys.executable, "-c", script, str(tmp_path / "x.db")])
    assert done.stdout == b"main ends\n"


def test_the_lock_is_left_to_others() -> None:
    lock_yield = LockYield()
    assert lock_yield.pause(100.0, held=0.02) == 0.005, "now and then a gap, in case somebody waits"
    assert lock_yield.pause(100.05, held=0.02) == 0.0, "alone, there is no other reason to pause"
    assert lock_yield.pause(100.11, held=0.02) == 0.005
    lock_yield.met(101.0)
    assert lock_yield.pause(101.0, held=0.02) == 0.02, "with another writer, as long as it was held"
    assert lock_yield.pause(105.0, held=9.0) == 0.05, "within bounds"
    assert lock_yield.pause(107.0, held=0.02) == 0.005, "until the other has been gone for a while"
