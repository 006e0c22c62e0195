"""A file of the first schema, as it was released, is brought up to date with all that it holds, wherever it is
interrupted."""

from __future__ import annotations

import shutil
from array import array
from pathlib import Path

import apsw
import pytest

from fanout.core.model import Target
from fanout.core.records import Backlog, EndpointFilter
from fanout.plugin import StorageContext
from fanout.storage.sqlite.opening import connect
from fanout.storage.sqlite.schema import STEPS, VERSION
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, lease_all, post, settle_all, standing, submission

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0), chunk=4)
RELEASED = Path(__file__).with_name("version1.sql")
"""A database of version 1: something of everything that it could hold, with chunks of four."""


def uuid(number: int) -> str:
    return f"00000000-0000-7000-8000-00000000000{number}"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    connection = apsw.Connection(str(path))
    connection.execute(RELEASED.read_text())
    assert connection.pragma("user_version") == 1
    connection.close()
    return path


async def look(path: Path) -> list[object]:
    """Everything that the released version knew, but for numbers of chunks."""
    async with SqliteStorage(str(path), CONTEXT, offload=Inline) as storage:
        found: list[object] = [await storage.outstanding(), await storage.events(), await storage.backlog("default")]
        found.append(await storage.list_endpoints(EndpointFilter(state=None)))
        for number in range(1, 7):
            found += [await standing(storage, uuid(number), T0 + 5), await storage.deliveries(uuid(number))]
            found.append(await storage.notification(uuid(number)))
        for lane in range(3):
            leased = await lease_all(storage, T0 + 120, lane=lane)
            found.append([(chunk.notification, chunk.attempt, chunk.ids, chunk.part) for chunk in leased])
        return found


async def test_what_a_released_file_holds_is_kept(old: Path) -> None:
    async with SqliteStorage(str(old), CONTEXT, offload=Inline) as storage:
        one = await standing(storage, uuid(1), T0 + 5)
        assert (one.counts["accepted"], one.counts["rejected"], one.counts["pending"]) == (2, 1, 9)
        assert dict(one.pending_by_reason) == {"ready": 1, "lane": 3, "gate": 3, "backoff": 2}
        assert dict(await storage.outstanding()) == {
            "backoff": 2,
            "gate": 3,
            "leased": 1,
            "ready": 3 + 4 + 2 + 2,
            "scheduled": 1,
        }
        assert await storage.backlog("default") == Backlog(9 + 4 + 2 + 1 + 2, 4 * len(submission().content), T0)
        rows = await storage.resolve(array("q", range(1, 13)), T0)
        assert [row.held_until for row in rows] == [0.0] * 12, "no retry of the first version holds anybody"

        await storage.pause("default", uuid(1), T0 + 6)
        assert (await standing(storage, uuid(1), T0 + 6)).pending_by_reason["paused"] == 8
        await storage.resume("default", uuid(1), T0 + 7)
        await storage.pause("default", uuid(2), T0 + 8)
        assert await lease_all(storage, T0 + 8, lane=2) == []
        await storage.resume("default", uuid(2), T0 + 9)
        steps = await storage.explain(uuid(1), 4)
        assert steps is not None
        assert [step.what for step in steps] == ["accepted", "paused", "resumed"], "who waits since then says no more"
        again = submission(collapse_key="c")
        assert (await post(storage, again, T0 + 10)).superseded == (uuid(1),)

        later = T0 + 600
        for _ in range(20):
            for binding in ("apns", "fcm"):
                await storage.expand("default", binding, later, ahead=9)
                for lane in range(3):
                    await settle_all(storage, await lease_all(storage, later, binding=binding, lane=lane), later)
        for number, total in ((1, 12), (2, 12), (3, 12), (4, 0), (5, 1), (6, 2)):
            status = await standing(storage, uuid(number), later)
            assert (status.finished_at is not None, status.total) == (True, total), status
        assert (await standing(storage, again.id, later)).counts["accepted"] == 12
        assert await storage.backlog("default") == Backlog()
        assert (await post(storage, submission(Target.user("alice")), later)).total == 12


async def test_interrupted_anywhere_it_is_of_the_version_before_or_the_last(
    old: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Before every statement; in `make test` before every fifth one, and each of the first and the last nine."""
    whole = tmp_path / "whole.db"
    shutil.copyfile(old, whole)
    expected = await look(whole)
    copies: list[Path] = []

    def trace(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        copies.append(tmp_path / f"killed-{len(copies)}.db")
        for suffix in ("", "-wal"):
            if (source := Path(f"{old}{suffix}")).exists():
                shutil.copyfile(source, f"{copies[-1]}{suffix}")
        return True

    def hook(connection: apsw.Connection) -> None:
        if connection.filename == str(old):
            connection.exec_trace = trace

    apsw.connection_hooks.append(hook)
    try:
        connect(str(old)).close()
    finally:
        apsw.connection_hooks.remove(hook)
    assert len(copies) > sum(step.count(";\n") for step in STEPS[1:]), "a copy before every statement"
    versions = []
    for copy in copies if request.config.getoption("--soak") else [*copies[:9], *copies[9:-9:5], *copies[-9:]]:
        connection = apsw.Connection(str(copy))
        versions.append(connection.pragma("user_version"))
        connection.close()
        assert await look(copy) == expected
    assert versions == sorted(versions)
    assert set(versions) == {1, VERSION}
