"""What the SQLite storage refuses to open: never silently started from nothing, each with one sentence that says what
to do."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import anyio
import apsw
import pytest

from fanout.core.model import Target
from fanout.errors import StorageRefused, StorageUnavailable
from fanout.plugin import StorageContext
from fanout.storage.sqlite.failure import translate
from fanout.storage.sqlite.opening import connect
from fanout.storage.sqlite.schema import APPLICATION_ID, STEPS, VERSION
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device
from fanout_kit.faulty.disk import Recorder

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0))


async def refusal(path: Path | str) -> str:
    storage = SqliteStorage(str(path), CONTEXT)
    with pytest.raises(StorageRefused) as caught:
        await storage.__aenter__()
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


async def filled(path: Path, devices: int = 3) -> None:
    async with SqliteStorage(str(path), CONTEXT) as storage:
        await storage.register([device("alice", str(i)) for i in range(devices)], T0)


async def devices(path: Path) -> int:
    async with SqliteStorage(str(path), CONTEXT) as storage:
        return sum((await storage.count_endpoints("default", Target.all())).values())


async def test_a_missing_file_is_made(tmp_path: Path) -> None:
    await filled(tmp_path / "new.db")
    assert await devices(tmp_path / "new.db") == 3


async def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with SqliteStorage(str(path), CONTEXT) as storage:
        await storage.register([device("alice", "1")], T0)
        assert {name: os.stat(tmp_path / name).st_mode & 0o777 for name in os.listdir(tmp_path)} == dict.fromkeys(
            ("new.db", "new.db-wal", "new.db-shm"), 0o600
        )


async def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    await filled(tmp_path / "empty.db")
    assert await devices(tmp_path / "empty.db") == 3


async def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in await refusal(tmp_path)


async def test_a_missing_folder(tmp_path: Path) -> None:
    assert "does not exist" in await refusal(tmp_path / "nowhere" / "x.db")


@pytest.mark.parametrize("location", ["", ":memory:", "file:x.db?mode=ro"])
async def test_no_file(location: str) -> None:
    assert "memory:" in await refusal(location)


@pytest.mark.parametrize("content", [b"x", b"not a database" * 1000, b"SQLite format 3\x00", b"\x00" * 4096])
async def test_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    text = await refusal(path)
    assert "not a database" in text or "damaged" in text
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [path.name]


async def test_another_programs_database(tmp_path: Path) -> None:
    for name, statements in (
        ("tables.db", "CREATE TABLE users (id INTEGER)"),
        ("id.db", "PRAGMA application_id = 7; CREATE TABLE users (id INTEGER)"),
        ("version.db", "PRAGMA user_version = 1"),
    ):
        path = tmp_path / name
        connection = apsw.Connection(str(path))
        connection.execute(statements)
        connection.close()
        before = path.read_bytes()
        assert "another program" in await refusal(path)
        assert path.read_bytes() == before


async def test_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    await filled(path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", VERSION + 1)
    connection.close()
    assert f"version {VERSION + 1}" in await refusal(path)


@pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
async def test_a_file_cut_off(tmp_path: Path, left: float) -> None:
    path = tmp_path / "cut.db"
    await filled(path, 2000)
    size = path.stat().st_size
    os.truncate(path, int(size * left))
    assert "damaged" in await refusal(path)
    assert path.stat().st_size == int(size * left)


async def test_a_cut_header(tmp_path: Path) -> None:
    path = tmp_path / "cut.db"
    await filled(path)
    os.truncate(path, 50)
    assert "header is cut off" in await refusal(path)


@pytest.mark.parametrize("page", [0, 1, 5, -1])
async def test_a_damaged_page(tmp_path: Path, page: int) -> None:
    path = tmp_path / "bad.db"
    await filled(path, 500)
    content = bytearray(path.read_bytes())
    at = (page % (len(content) // 4096)) * 4096
    start = at + 100 if page == 0 else at
    content[start : start + 60] = b"\xa5" * 60
    path.write_bytes(content)
    assert "damaged" in await refusal(path)


OPEN = """
import anyio, asyncio, os, sys
from fanout.errors import StorageRefused
from fanout.plugin import StorageContext
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock

async def main():
    try:
        async with SqliteStorage(sys.argv[1], StorageContext(clock=VirtualClock())):
            print("opened")
    except StorageRefused as error:
        print(error)

anyio.run(anyio.sleep, 0)  # What is imported late must be imported before the rights are gone.
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main())
"""


async def _opened_without_rights(path: Path) -> str:
    """What a user without rights gets when it opens the database."""
    command = [sys.executable, "-c", OPEN, str(path)]
    done = await anyio.run_process(command, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_without_permission(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "x.db"
        await filled(path)
        os.chmod(folder, 0o777)
        os.chmod(path, 0o666)
        assert await _opened_without_rights(path) == "opened"
        os.chmod(path, 0o444 if what == "file" else 0o666)
        os.chmod(folder, 0o777 if what == "file" else 0o555)
        try:
            assert "cannot be opened for writing" in await _opened_without_rights(path)
        finally:
            os.chmod(folder, 0o755)
        assert await devices(path) == 3


def test_killed_while_it_is_brought_up_to_date(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """At every statement on the way (every fifth in `make test`) the files hold nothing or everything, and opening them
    makes what is missing."""
    extra = "CREATE TABLE later (id INTEGER PRIMARY KEY);\nINSERT INTO later VALUES (1);\nINSERT INTO later VALUES (2);"
    steps = (*STEPS, extra)
    path = tmp_path / "x.db"
    killed: list[Path] = []

    def trace(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        killed.append(tmp_path / f"killed-{len(killed)}.db")
        for suffix in ("", "-wal"):
            if (source := Path(f"{path}{suffix}")).exists():
                shutil.copyfile(source, f"{killed[-1]}{suffix}")
        return True

    def hook(connection: apsw.Connection) -> None:
        if connection.filename == str(path):
            connection.exec_trace = trace

    apsw.connection_hooks.append(hook)
    try:
        connect(str(path), steps=steps).close()
    finally:
        apsw.connection_hooks.remove(hook)
    assert len(killed) > 50
    versions = []
    for each in killed if request.config.getoption("--soak") else [*killed[:9], *killed[9:-9:5], *killed[-9:]]:
        if each.exists():
            version, tables, rows = _look(each)
            versions.append(version)
            assert (version > 0) == (tables > 0)
            assert rows == (2 if version == len(steps) else None)
        connect(str(each), steps=steps).close()
        assert _look(each)[::2] == (len(steps), 2)
    assert sorted(set(versions)) == [0, len(steps)]


@pytest.mark.parametrize("done", range(VERSION + 1))
def test_a_file_between_two_versions_is_brought_up_to_date(tmp_path: Path, done: int) -> None:
    """As an update step by step leaves it that is killed."""
    path = tmp_path / "x.db"
    connection = apsw.Connection(str(path))
    for number, step in enumerate(STEPS[:done], 1):
        connection.execute(step)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", number)
    connection.close()
    connect(str(path)).close()
    assert _look(path)[0] == VERSION


def test_all_steps_wait_for_the_disk_once(tmp_path: Path) -> None:
    recorder = Recorder()
    connection = connect(str(tmp_path / "x.db"))
    waits = [entry.name for entry in recorder.log if entry.kind == "sync"]
    connection.close()
    assert waits.count("x.db-wal") == 1 + 1, "the log's header, and one commit"
    assert len(waits) < 8, "the rest is for the change to a log"


def _look(path: Path) -> tuple[int, int, int | None]:
    connection = apsw.Connection(str(path))
    try:
        version = connection.pragma("user_version")
        assert connection.pragma("application_id") in (0, APPLICATION_ID)
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
        later = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'later'").get
        rows = connection.execute("SELECT count(*) FROM later").get if later else None
        return version, tables, rows
    finally:
        connection.close()


def test_a_log_that_was_deleted_beside_an_open_database_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "fanout.db"
    first = connect(str(path))
    try:
        first.execute("INSERT INTO app (name) VALUES ('shop')")
        path.with_name("fanout.db-wal").unlink()
        with pytest.raises(StorageRefused, match=r"fanout\.db-wal was deleted or emptied .* end every process"):
            connect(str(path)).close()
    finally:
        first.close()


def test_want_of_memory_in_sqlite_names_the_limit() -> None:
    error = translate(apsw.NoMemError("out of memory"), "fanout.db")
    assert isinstance(error, StorageUnavailable)
    assert "ulimit -v" in str(error)
