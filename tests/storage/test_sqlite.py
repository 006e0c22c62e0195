"""The SQLite storage keeps the contract, on its thread and inline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fanout.core.records import Settlement
from fanout.storage.sqlite import leasing, plugin
from fanout.storage.sqlite.opening import connect
from fanout.storage.sqlite.store import Inline, Thread
from fanout.storage.sqlite.worker import Offload
from fanout.testing.storage import CHECKS, Maker, run_check
from fanout.testing.storage_kit import T0, Kit, device, lease_all, post, submission
from tests.storage.books import books_in

pytestmark = pytest.mark.anyio

Makers = Callable[..., tuple[Maker, Maker]]


@pytest.mark.parametrize("offload", [Thread, Inline])
@pytest.mark.parametrize("name", CHECKS)
async def test_law(name: str, offload: Callable[[], Offload], makers: Makers, tmp_path: Path) -> None:
    """And what is kept twice for speed agrees with what it was counted from."""
    await run_check(name, *makers(offload))
    books = books_in(tmp_path)
    assert books
    assert not any(books.values()), books


async def test_what_is_paused_after_the_look_for_work_is_not_leased(
    makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process pauses the binding between the look, which holds no lock, and the lease."""
    monkeypatch.setattr(leasing, "leasable", lambda *_: True)
    await run_check("bindings_pause", *makers(Inline))


def test_descriptor_is_light() -> None:
    assert plugin.name == "sqlite"
    assert plugin.factory == "fanout.storage.sqlite.store:SqliteStorage"


def test_a_commit_reaches_the_disk_itself_on_macos_too(tmp_path: Path) -> None:
    """Other systems ignore both; on macOS fsync alone ends in the disk's cache (fcntl(2), F_FULLFSYNC)."""
    connection = connect(str(tmp_path / "x.db"))
    try:
        assert [connection.pragma(name) for name in ("synchronous", "fullfsync", "checkpoint_fullfsync")] == [2, 1, 1]
    finally:
        connection.close()


async def test_the_settlement_that_ends_a_notification_tells_its_status_to_the_last_digit(makers: Makers) -> None:
    """The times go through JSON there, and not where the status is read."""
    maker, _ = makers(Inline)
    moment = 1_764_485_436.1234567
    async with maker(Kit(maker).context()) as storage:
        await storage.register([device("alice", str(i)) for i in range(2)], moment)
        await post(storage, sub := submission(now=moment))
        (chunk,) = await lease_all(storage, moment)
        settlement = Settlement(
            chunk.id, chunk.epoch, results={("accepted", ""): [0], ("gone", "410"): [1]}, attempts=2
        )
        (told,) = await storage.settle([settlement], moment + 1e-6)
        assert told.status is not None
        assert told.status == await storage.status(sub.id, moment)


@pytest.mark.parametrize("due_in", [0.0, 5.0])
async def test_a_lease_brings_endpoints_and_only_notifications_of_other_processes(
    makers: Makers, due_in: float
) -> None:
    """This process keeps those that it puts prepared, unless they are due later: they are prepared then."""
    maker, again = makers(Inline)
    async with maker(Kit(maker).context()) as storage:
        await storage.register([device("alice", str(i)) for i in range(3)], T0)
        sub = submission(due_at=T0 + due_in)
        await post(storage, sub, T0)
        await storage.expand("default", "apns", T0 + due_in, ahead=4)
        (chunk,) = await lease_all(storage, T0 + due_in)
        assert chunk.rows == await storage.resolve(chunk.ids, T0)
        assert chunk.stored == (await storage.notification(sub.id) if due_in else None)
    async with again(Kit(again).context()) as other:
        (chunk,) = await lease_all(other, T0 + due_in + 60)
        assert chunk.stored is not None
        assert chunk.stored.content == sub.content
