"""The files of a database under a running process: its locks, its log, and what other programs do to them."""

from __future__ import annotations

import asyncio
import shutil
import sys
import threading
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import apsw
import pytest

from fanout.core.model import Target
from fanout.errors import StorageError, StorageUnavailable
from fanout.plugin import Sealer, StorageContext
from fanout.storage.sqlite import opening
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, lease_all, settle_all, standing, submission

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0))
SHELL = shutil.which("sqlite3")
LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM notification").fetchone()[0])
connection.close()
"""


def at(path: Path) -> SqliteStorage:
    return SqliteStorage(str(path), CONTEXT)


async def _look(path: Path, how: str) -> int:
    """Another program opens the database, reads, and closes it: the last to close moves the log into the file and
    deletes it."""
    if how == "shell":
        if SHELL is None:
            pytest.skip("sqlite3 is not installed (Debian: apt-get install sqlite3)")
        command = [SHELL, str(path), "SELECT count(*) FROM notification"]
    else:
        command = [sys.executable, "-c", LOOK, str(path)]
    return int((await anyio.run_process(command)).stdout)


@pytest.mark.parametrize("how", ["python", pytest.param("shell", marks=pytest.mark.external)])
async def test_a_second_storage_of_one_file_keeps_the_locks_of_the_first(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.db"
    async with at(path) as first:
        sent = [submission() for _ in range(20)]
        await first.put(sent[:10], T0)
        async with at(path) as second:
            await second.put(sent[10:11], T0)
        # Opened and refused, too, and looked at by whatever else opens it here.
        assert await _look(path, how) == 11
        log = (tmp_path / "x.db-wal").stat().st_ino
        await first.put(sent[11:], T0)
        assert await _look(path, how) == 20
        assert (tmp_path / "x.db-wal").stat().st_ino == log
    async with at(path) as again:
        assert all([await again.status(sub.id, T0) for sub in sent])


async def test_sixteen_threads_open_one_new_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    ids: list[str] = []
    faults: list[BaseException] = []
    together = threading.Barrier(16)

    def thread() -> None:
        async def work() -> None:
            async with at(path) as storage:
                for _ in range(3):
                    sub = submission()
                    await storage.put([sub], T0)
                    ids.append(sub.id)

        try:
            together.wait()
            asyncio.run(work())
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=thread) for _ in range(16)]
    for each in threads:
        each.start()
    while any(each.is_alive() for each in threads):
        await _look_if_there(path)
    for each in threads:
        each.join()
    assert faults == []
    async with at(path) as storage:
        assert len(ids) == 48
        assert all([await storage.status(id, T0) for id in ids])


async def _look_if_there(path: Path) -> None:
    await anyio.run_process([sys.executable, "-c", LOOK, str(path)], check=False)


def test_no_file_of_the_database_is_opened_by_anything_but_sqlite(tmp_path: Path) -> None:
    """Whatever is opened beside SQLite drops the locks when it is closed: Python's audit events tell of each such
    opening."""
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(str(tmp_path / "x.db")):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)

    async def work() -> None:
        async with at(tmp_path / "x.db") as storage:
            await storage.put([submission()], T0)
        async with at(tmp_path / "x.db") as storage:
            await storage.put([submission()], T0)

    try:
        asyncio.run(work())
    finally:
        watching = False
    assert opened == []


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("fate", ["deleted", "replaced"])
async def test_a_file_that_is_taken_away_is_noticed_before_anything_is_acknowledged(
    tmp_path: Path, suffix: str, fate: str
) -> None:
    path = tmp_path / "x.db"
    async with at(path) as storage:
        await storage.put([submission()], T0)
        taken = tmp_path / f"x.db{suffix}"
        taken.rename(tmp_path / "elsewhere")
        if fate == "replaced":
            shutil.copyfile(tmp_path / "elsewhere", taken)
        with pytest.raises(StorageError, match="may be gone") as caught:
            await storage.put([submission()], T0)
        assert taken.name in str(caught.value)
        assert not isinstance(caught.value, StorageUnavailable)
        with pytest.raises(StorageError, match="may be gone"):
            await storage.put([submission()], T0)


async def test_the_log_taken_away_during_a_commit_is_noticed_too(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with at(path) as storage:
        await storage.put([submission()], T0)

        def remove(connection: apsw.Connection, *_: object) -> int:
            (tmp_path / "x.db-wal").unlink(missing_ok=True)
            return 0

        assert storage._database is not None
        storage._database._connection.set_wal_hook(remove)
        with pytest.raises(StorageError, match="may be gone"):
            await storage.put([submission()], T0)


async def test_a_backup_restored_into_the_open_file_gives_nobodys_numbers_to_another(tmp_path: Path) -> None:
    """The number of an app, of a binding: the restored database has given them to others."""
    other, path = tmp_path / "other.db", tmp_path / "x.db"
    async with at(other) as storage:
        await storage.register([device("zoe", "9", app="theirs"), device("yan", "8", app="theirs")], T0)
    async with at(path) as storage:
        await storage.register([device("alice", "1", app="ours")], T0)
        assert sum((await storage.count_endpoints("ours", Target.all())).values()) == 1
        # In another process: a second library in this one would drop its locks.
        await anyio.run_process([sys.executable, "-c", RESTORE, str(other), str(path)])
        assert sum((await storage.count_endpoints("ours", Target.all())).values()) == 0
        assert sum((await storage.count_endpoints("theirs", Target.all())).values()) == 2
        await storage.register([device("bob", "2", app="ours")], T0)
        assert sum((await storage.count_endpoints("theirs", Target.all())).values()) == 2


RESTORE = """
import sqlite3, sys
source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
source.backup(target)
target.close()
source.close()
"""


# -- what passes


async def test_what_reads_goes_on_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with at(path) as storage:
        made = await storage.register([device(f"user{n}", f"{n}") for n in range(1500)], T0)
        sub = submission(Target.all())
        await storage.put([sub], T0)
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.ensure_future(storage.put([submission()], T0)) for _ in range(3)]
        waiting.append(asyncio.ensure_future(lease_all(storage)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        for _ in range(20):
            assert await storage.status(sub.id, T0) is not None
        assert len(await storage.resolve(array("q", [each.id for each in made]), T0)) == 1500
        assert not any(each.done() for each in waiting)
        other.execute("ROLLBACK")
        other.close()
        await asyncio.gather(*waiting)


async def test_a_lock_that_is_held_for_long_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_BUSY_LIMIT", 0.02)
    path = tmp_path / "x.db"
    async with at(path) as storage:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(StorageUnavailable, match="held the lock"):
                await storage.put([submission()], T0)
        other.execute("ROLLBACK")
        other.close()
        await storage.put([submission()], T0)


class Disk(apsw.VFS):
    """The machine's files; each of `errors` (SQLite's codes) is what the next write of a log comes to."""

    def __init__(self) -> None:
        self.errors: list[int] = []
        super().__init__("passing", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._is_log and self._disk.errors:
            raise apsw.exception_for(self._disk.errors.pop(0))
        super().xWrite(data, offset)


@asynccontextmanager
async def on(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SqliteStorage, Disk]]:
    disk = Disk()
    real = apsw.Connection

    class Shim:
        def __getattr__(self, name: str) -> object:
            return (
                (lambda file, **named: real(file, vfs="passing", **named))
                if name == "Connection"
                else getattr(apsw, name)
            )

    monkeypatch.setattr(opening, "apsw", Shim())
    try:
        async with at(path) as storage:
            yield storage, disk
    finally:
        monkeypatch.undo()
        disk.unregister()


@pytest.mark.parametrize(
    "code",
    [
        apsw.SQLITE_IOERR_WRITE,
        apsw.SQLITE_IOERR_SHMLOCK,
        apsw.SQLITE_READONLY,
        apsw.SQLITE_CANTOPEN,
        apsw.SQLITE_PERM,
        apsw.SQLITE_AUTH,
        apsw.SQLITE_NOMEM,
        apsw.SQLITE_PROTOCOL,
        apsw.SQLITE_INTERRUPT,
    ],
)
async def test_what_is_no_damage_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A quota, a disk that is read-only for a while, a right taken away and given back: each write says so, and then
    all goes on."""
    path = tmp_path / "x.db"
    async with on(path, monkeypatch) as (storage, disk):
        await storage.register([device("alice", "1")], T0)
        kept = submission()
        await storage.put([kept], T0)
        disk.errors = [code]
        with pytest.raises(StorageUnavailable):
            await storage.put([submission()], T0)
        assert disk.errors == []
        later = submission()
        await storage.put([later], T0)
        await settle_all(storage, await lease_all(storage))
        assert (await standing(storage, kept.id)).state == (await standing(storage, later.id)).state == "done"


async def test_a_folder_that_cannot_be_written_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is made anew once its files have failed it; until that can be, nothing but that is said."""
    path = tmp_path / "x.db"
    async with on(path, monkeypatch) as (storage, disk):
        kept = submission()
        await storage.put([kept], T0)
        disk.errors = [apsw.SQLITE_READONLY]
        with pytest.raises(StorageUnavailable):
            await storage.put([submission()], T0)

        def refused(*_: object, **__: object) -> None:
            raise apsw.CantOpenError("no")

        with monkeypatch.context() as patch:
            patch.setattr(opening.apsw, "Connection", refused, raising=False)
            for _ in range(3):
                with pytest.raises(StorageUnavailable, match="cannot be opened for writing"):
                    await storage.put([submission()], T0)
                with pytest.raises(StorageUnavailable, match="cannot be opened for writing"):
                    await storage.status(kept.id, T0)
        assert await storage.status(kept.id, T0) is not None
        await storage.put([submission()], T0)


async def test_keys_of_addresses_that_do_not_fit_for_a_while_pass(tmp_path: Path) -> None:
    """Another program has sealed the file with a key that this one lacks: named, and over once its record is the old
    one again."""
    path = tmp_path / "x.db"
    keys = [Sealer([bytes([n]) * 32]) for n in (1, 2)]
    async with SqliteStorage(str(path), replace(CONTEXT, sealer=keys[0])) as storage:
        await storage.register([device("alice", "1")], T0)
        other = apsw.Connection(str(path))
        (record,) = other.execute("SELECT record FROM seal").fetchone()
        other.execute("UPDATE seal SET record = ?", (keys[1].begin(complete=True).dump(),))
        for _ in range(2):
            with pytest.raises(StorageUnavailable, match="address key"):
                await storage.register([device("bob", "2")], T0)
        other.execute("UPDATE seal SET record = ?", (record,))
        other.close()
        assert len(await storage.register([device("bob", "2")], T0)) == 1


async def test_a_commit_of_others_is_seen_over_a_connection_that_was_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite counts them for each connection by itself, so that another connection's number may be the same."""
    path = tmp_path / "x.db"
    async with on(path, monkeypatch) as (storage, disk), at(path) as other:
        seen = await storage.changes(others=True)
        disk.errors = [apsw.SQLITE_READONLY]
        with pytest.raises(StorageUnavailable):
            await storage.put([submission()], T0)
        await other.put([submission()], T0)
        assert await storage.changes(others=True) != seen
