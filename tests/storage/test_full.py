"""A full disk, a failed fsync, a lost power: nothing acknowledged is lost, and everybody is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from fanout.cli.doctor import examine
from fanout.core.model import Target
from fanout.core.records import Settled
from fanout.errors import StorageError, StorageFull
from fanout.plugin import StorageContext
from fanout.registry import Registry
from fanout.storage.sqlite import files, opening
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, done, lease_all, settle_all, standing, submission

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0))


def limited(storage: SqliteStorage, pages: int) -> None:
    """Let the file grow to so many pages and no further."""
    assert storage._database is not None
    storage._database._connection.pragma("max_page_count", pages)


async def accept_until_full(storage: SqliteStorage, limit: int = 3000) -> list[str]:
    """Put until there is no room; the ids that were accepted."""
    accepted = []
    for _ in range(limit):
        sub = replace(submission(Target.all()), content=b'{"body":"' + b"x" * 3000 + b'"}')
        try:
            await storage.put([sub], T0)
        except StorageFull as full:
            assert "full" in str(full)
            return accepted
        accepted.append(sub.id)
    raise AssertionError("the disk fills up")


async def test_no_room_in_the_file(tmp_path: Path) -> None:
    """Nothing accepted is lost; what is asked is refused, with the reason; and with room all goes on."""
    path = str(tmp_path / "x.db")
    async with SqliteStorage(path, CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(10)], T0)
        limited(storage, 110)
        accepted = await accept_until_full(storage)
        assert len(accepted) > 10
        events = await storage.events(limit=10_000)
        with pytest.raises(StorageFull):
            await storage.register([device("bob", str(i)) for i in range(2000)], T0)
        answers = await asyncio.gather(
            *(storage.register([device("carol", f"{i}-{j}") for j in range(500)], T0) for i in range(5)),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {StorageFull}, "each caller of a failed commit is told"
        assert await storage.events(limit=10_000) == events
        assert sum((await storage.count_endpoints("default", Target.all())).values()) == 10
        limited(storage, 2**30)
        again = submission(Target.all())
        await storage.put([again], T0)
        for id in [*accepted, again.id]:
            assert (await standing(storage, id)).state == "expanding"
    async with SqliteStorage(path, CONTEXT) as storage:
        for id in [*accepted, again.id]:
            assert await storage.status(id, 0.0) is not None


async def test_settling_on_a_full_disk_keeps_the_lease(tmp_path: Path) -> None:
    """A settlement that finds no room is not stored at all, and can be repeated when there is some."""
    async with SqliteStorage(str(tmp_path / "x.db"), CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(1000)], T0)
        sub = submission()
        await storage.put([sub], T0)
        (chunk,) = await lease_all(storage)
        limited(storage, 1)
        many = done(chunk)
        many.results = {("rejected", f"{i} " + "x" * 400): [i] for i in range(len(chunk.ids))}
        with pytest.raises(StorageFull):
            await storage.settle([many], T0)
        assert (await standing(storage, sub.id)).counts["pending"] == 1000
        limited(storage, 2**30)
        assert await storage.settle([many], T0) == [Settled(False, sub.id)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs: run as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_no_room_on_the_disk(small_disk: Path) -> None:
    """The write-ahead log meets the end of a real file system."""
    async with SqliteStorage(str(small_disk / "x.db"), CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(10)], T0)
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            file.write(bytes(shutil.disk_usage(small_disk).free - 600_000))
        accepted = await accept_until_full(storage)
        assert len(accepted) > 3
        with pytest.raises(StorageFull):
            await storage.put([submission(Target.all())], T0)
        assert all([await storage.status(id, 0.0) for id in accepted]), "reading goes on"
        ballast.unlink()
        again = submission(Target.all())
        await storage.put([again], T0)
        accepted.append(again.id)
    async with SqliteStorage(str(small_disk / "x.db"), CONTEXT) as storage:
        assert all([await storage.status(id, 0.0) for id in accepted])


async def test_no_room_to_open(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    with pytest.raises(StorageFull):
        await SqliteStorage(str(small_disk / "x.db"), CONTEXT).__aenter__()
    ballast.unlink()
    async with SqliteStorage(str(small_disk / "x.db"), CONTEXT) as storage:
        await storage.put([submission()], T0)


@pytest.mark.parametrize("fate", ["deleted", "replaced", "-wal", "-shm"])
async def test_a_file_that_disappears(tmp_path: Path, fate: str) -> None:
    """Nothing is accepted into a file that cannot be opened any more, and each caller learns of its name and the
    remedy."""
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CONTEXT) as storage:
        await storage.put([submission()], T0)
        lost = path if fate in ("deleted", "replaced") else tmp_path / f"x.db{fate}"
        lost.rename(tmp_path / "elsewhere")
        if fate == "replaced":
            path.touch()
        for _ in range(2):
            with pytest.raises(StorageError, match=f"{lost} was moved, deleted or emptied .* Put the file back"):
                await storage.put([submission()], T0)


async def test_a_file_that_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell's `>` leaves the same file: its log alone is no database."""
    monkeypatch.setattr(files, "_EVERY", 0.0)
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CONTEXT) as storage:
        await storage.put([submission()], T0)
        # What moves the log into the file, and so fills it, is no loss.
        with apsw.Connection(str(path)) as other:
            other.pragma("wal_checkpoint(TRUNCATE)")
        await storage.put([submission()], T0)
        os.truncate(path, 0)
        for _ in range(2):
            with pytest.raises(StorageError, match=f"{path} was moved, deleted or emptied .* Put the file back"):
                await storage.put([submission()], T0)


class Disk(apsw.VFS):
    """The machine's files, with faults: `fail` is the number of the sync that fails, counted from now."""

    def __init__(self) -> None:
        self.fail = 0
        super().__init__("faulty", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self._disk.fail:
            self._disk.fail -= 1
            if not self._disk.fail:
                raise apsw.IOError("the disk says no")
        super().xSync(flags)


@asynccontextmanager
async def faulty(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SqliteStorage, Disk]]:
    disk = Disk()
    real = apsw.Connection

    def made(filename: str, **named: int) -> apsw.Connection:
        return real(filename, vfs="faulty", **named)

    class Shim:
        def __getattr__(self, name: str) -> object:
            return made if name == "Connection" else getattr(apsw, name)

    monkeypatch.setattr(opening, "apsw", Shim())
    try:
        async with SqliteStorage(str(path), CONTEXT) as storage:
            yield storage, disk
    finally:
        monkeypatch.undo()
        disk.unregister()


async def test_a_failed_fsync_ends_all_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is never tried again: its caller is told, further writes are refused, and reopening finds what was
    accepted."""
    path = tmp_path / "x.db"
    async with faulty(path, monkeypatch) as (storage, disk):
        await storage.register([device("alice", "1")], T0)
        kept = submission()
        await storage.put([kept], T0)
        disk.fail = 1
        with pytest.raises(StorageError, match="takes no more writes until it is opened again") as caught:
            await storage.put([submission()], T0)
        assert not isinstance(caught.value, StorageFull)
        assert disk.fail == 0
        for _ in range(3):
            with pytest.raises(StorageError, match="takes no more writes"):
                await storage.put([submission()], T0)
            with pytest.raises(StorageError, match="takes no more writes"):
                await lease_all(storage)
    async with SqliteStorage(str(path), CONTEXT) as storage:
        assert (await standing(storage, kept.id)).counts["pending"] == 1
        await settle_all(storage, await lease_all(storage))
        assert (await standing(storage, kept.id)).state == "done"
    assert os.listdir(tmp_path) == ["x.db"]


async def test_doctor_finds_a_full_disk(small_disk: Path) -> None:
    """It can be opened and read, and nothing can be stored."""
    config = small_disk / "fanout.toml"
    config.write_text(f'storage = "sqlite:{small_disk / "x.db"}"\n')
    async with SqliteStorage(str(small_disk / "x.db"), CONTEXT) as storage:
        await storage.register([device("alice", "1")], T0)
        (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 600_000))
        await accept_until_full(storage)
        with contextlib.suppress(StorageFull):
            while True:  # what is left of the log holds small things
                await storage.probe()
        (found,) = [each async for each in examine(config, Registry()) if each.kind == "storage"]
    assert (found.code, "is full" in found.problem) == (1, True)
