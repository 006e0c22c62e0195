"""What SQLite writes down for `explain`: nothing for what was accepted, little else, and not for longer than it is of
use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fanout.core.policy import Retention
from fanout.core.records import Release, RetryRow, Settlement
from fanout.core.states import DOUBT
from fanout.plugin import StorageContext
from fanout.storage.sql import expansion
from fanout.storage.sqlite import leasing
from fanout.storage.sqlite.operations import Operation
from fanout.storage.sqlite.session import shared
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, done, lease_all, post, settle_all, submission

pytestmark = pytest.mark.anyio


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    keep = Retention(notifications=100)
    context = StorageContext(clock=VirtualClock(T0), chunk=10, retention=keep)
    async with SqliteStorage(str(tmp_path / "x.db"), context, offload=Inline) as opened:
        await opened.register([device("alice", str(i)) for i in range(30)], T0)
        yield opened


def decisions(storage: SqliteStorage) -> int:
    assert storage._database is not None
    found: int = storage._database._connection.execute("SELECT count(*) FROM decision").get
    return found


async def test_what_is_accepted_leaves_no_trace(storage: SqliteStorage) -> None:
    await post(storage, submission())
    chunks = await lease_all(storage)
    marks = [Settlement(chunk.id, chunk.epoch, {(DOUBT, ""): [0], ("accepted", ""): [1, 2]}) for chunk in chunks]
    await storage.settle(marks, T0)
    rest = [Settlement(chunk.id, chunk.epoch, {("accepted", ""): [0, *range(3, 10)]}) for chunk in chunks]
    await storage.settle(rest, T0)
    assert decisions(storage) == 0


async def test_a_batch_leaves_a_row_for_each_notification(storage: SqliteStorage) -> None:
    await post(storage, submission())
    await post(storage, submission())
    settlements = []
    for chunk in await lease_all(storage):
        rows = [RetryRow(i, T0 + 50 + i, 2, "backoff", "busy", holds=True) for i in range(5)]
        settlements.append(Settlement(chunk.id, chunk.epoch, retries=rows, release=Release(T0 + 9, "gate", "503")))
    assert len(settlements) == 6
    await storage.settle(settlements, T0 + 1)
    assert decisions(storage) == 2


async def test_what_is_pruned_is_not_explained(storage: SqliteStorage) -> None:
    sub = submission()
    await post(storage, sub)
    await storage.pause_binding("default", "apns", T0)
    await storage.resume_binding("default", "apns", T0)
    for chunk in await lease_all(storage):
        await storage.settle([Settlement(chunk.id, chunk.epoch, release=Release(T0, "gate"))], T0)
    await settle_all(storage, await lease_all(storage), T0)
    assert decisions(storage) == 5
    while await storage.prune(T0 + 100, limit=2):
        pass
    assert decisions(storage) == 5, "as long as the notification is known, its decisions are"
    while await storage.prune(T0 + 101, limit=2):
        pass
    assert decisions(storage) == 0
    assert await storage.explain(sub.id, 1) is None


async def test_a_lost_lease_of_what_was_stopped_is_an_end_and_no_takeover(storage: SqliteStorage) -> None:
    sub = submission()
    await post(storage, sub)
    await lease_all(storage)
    await storage.pause("default", sub.id, T0 + 1)
    await storage.cancel("default", sub.id, T0 + 2)
    assert (await storage.stopped([sub.id])) == {sub.id: "cancelled"}
    assert await lease_all(storage, T0 + 30) == []
    steps = await storage.explain(sub.id, 1)
    assert steps is not None
    assert [step.what for step in steps] == ["accepted", "queued", "leased", "paused", "ended"]


async def test_a_pause_that_comes_after_the_look_is_heeded(storage: SqliteStorage) -> None:
    """The look for work is no part of the transaction: another process may pause the binding in between."""
    await post(storage, submission())
    await storage.pause_binding("default", "apns", T0)
    lease = Operation(lambda db: leasing.lease(db, "w", "default", "apns", 1, 100, T0, T0 + 30, set()), write=True)
    assert await storage._do(lease) == []
    expand = Operation(lambda db: shared(db, expansion.expand, "default", "apns", T0, 9), write=True)
    assert await storage._do(expand) == 0
    await storage.resume_binding("default", "apns", T0)
    chunks = await lease_all(storage)
    await storage.settle([done(chunk) for chunk in chunks], T0)
    assert len(chunks) == 3
