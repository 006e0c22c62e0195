"""After a user is erased, no byte of the database's files has the id, a text or an address."""

from __future__ import annotations

import random
import re
from array import array
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import EndpointFilter
from fanout.errors import StorageUnavailable
from fanout.plugin import Sealer, StorageContext
from fanout.storage.sqlite import store, wiping
from fanout.storage.sqlite.store import SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_erase import ADDRESS, TEXT, USER, leave_traces
from fanout.testing.storage_kit import T0, device, post, settle_all, submission

pytestmark = pytest.mark.anyio

MARKS = tuple(mark.encode() for mark in (USER, TEXT, ADDRESS))
CLEAR = StorageContext(clock=VirtualClock(T0), chunk=10)


def found(path: Path) -> dict[str, set[bytes]]:
    """The marks that stand in the files of a database, by file."""
    files = {end: Path(f"{path}{end}") for end in ("", "-wal", "-shm")}
    return {end: {mark for mark in MARKS if mark in file.read_bytes()} for end, file in files.items() if file.exists()}


def bytes_of(path: Path) -> bytes:
    return b"".join(Path(f"{path}{end}").read_bytes() for end in ("", "-wal", "-shm"))


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another connection"])
async def test_no_byte_is_left(tmp_path: Path, others: int) -> None:
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CLEAR) as storage:
        beside = [SqliteStorage(str(path), CLEAR) for _ in range(others)]
        for each in beside:
            await each.__aenter__()
        await leave_traces(storage)
        assert set().union(*found(path).values()) == set(MARKS), "the search finds what is there"
        await storage.erase_user("default", USER, T0 + 1)
        assert found(path) == {"": set(), "-wal": set(), "-shm": set()}
        for each in beside:
            await each.__aexit__()


async def test_no_byte_of_a_sealed_address_is_left(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    context = replace(CLEAR, sealer=Sealer([bytes(range(32))]))
    async with SqliteStorage(str(path), context) as storage:
        (one,) = await storage.register([device(USER, f"{ADDRESS}-9")], T0)
        sealed = apsw.Connection(str(path)).execute("SELECT address, identity, digest FROM endpoint").get
        await leave_traces(storage)
        await storage.erase_user("default", USER, T0 + 1)
        left = bytes_of(path)
        assert not [mark for mark in MARKS if mark in left]
        assert not [text for text in sealed if (text if isinstance(text, bytes) else text.encode()) in left]
        assert (await storage.resolve(array("q", [one.id]), T0 + 2))[0].address == ""


async def test_a_file_of_the_version_before_is_written_anew_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CLEAR) as storage:
        await storage.register([device(USER, f"{ADDRESS}-1")], T0)
    # As a version did that overwrote nothing.
    old = apsw.Connection(str(path))
    old.pragma("secure_delete", 0)
    old.execute("DELETE FROM endpoint; UPDATE feed SET wiped = 0")
    old.close()
    assert found(path)[""] == {USER.encode(), ADDRESS.encode()}
    async with SqliteStorage(str(path), CLEAR) as storage:
        await storage.erase_user("default", USER, T0 + 1)
        assert set().union(*found(path).values()) == set()
        assert apsw.Connection(str(path)).execute("SELECT wiped FROM feed").get == 1


async def test_what_balancing_left_in_a_gap_is_found_and_goes(tmp_path: Path) -> None:
    """SQLite copies rows from page to page, and leaves what it copied where no row is."""
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CLEAR) as storage:
        await storage.register([device(f"user{number}", f"t{number}") for number in range(300)], T0)
        await storage.register([device(USER, f"{ADDRESS}-1")], T0)
    data = bytearray(path.read_bytes())
    page = 4096
    for start in range(page, len(data), page):
        if data[start] in (2, 5, 10, 13):
            cells, content = (int.from_bytes(data[start + at : start + at + 2], "big") for at in (3, 5))
            begin = start + (12 if data[start] < 8 else 8) + 2 * cells
            if start + content - begin > len(USER) + 8:
                data[begin + 4 : begin + 4 + len(USER)] = USER.encode()
                break
    path.write_bytes(data)
    async with SqliteStorage(str(path), CLEAR) as storage:
        await storage.erase_user("default", USER, T0 + 1)
        assert set().union(*found(path).values()) == set()
        assert len(await storage.list_endpoints(EndpointFilter())) == 300


async def test_a_reader_that_keeps_the_log_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_LOOKS", 3)
    monkeypatch.setattr(store, "_BETWEEN", 0.001)
    path = tmp_path / "x.db"
    async with SqliteStorage(str(path), CLEAR) as storage:
        await leave_traces(storage)
        reader = apsw.Connection(str(path))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM endpoint").fetchall()
        with pytest.raises(StorageUnavailable, match="erase the user again"):
            await storage.erase_user("default", USER, T0 + 1)
        reader.execute("COMMIT")
        reader.close()
        assert await storage.erase_user("default", USER, T0 + 2) == 0
        assert set().union(*found(path).values()) == set()


def test_gaps_are_what_no_cell_covers() -> None:
    """SQLite itself leaves copies of rows there, with `secure_delete` too, where it splits a page: the reason for the
    look."""
    rng = random.Random(7)
    with apsw.Connection(":memory:") as made:
        made.pragma("secure_delete", 1)
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX i ON t (x)")
        for number in range(400):
            made.execute("INSERT INTO t (x) VALUES (?)", (f"row-{number:05}-" + "y" * rng.randint(0, 300),))
        data = made.serialize("main")
    gap = b"".join(wiping.gaps(data, 4096, first=True))
    assert 0 < len(re.findall(rb"row-\d{5}-y", gap)) < 100
    page = bytearray(4096)
    page[0], page[5:7] = 13, (4000).to_bytes(2, "big")
    page[2000:2020] = b"left of a deleted ro"
    assert list(wiping.gaps(bytes(page), 4096)) == [b"left of a deleted ro"]
    assert wiping.stale(b"..left of a deleted ro..", [b"what is left of a deleted row in a page"])
    assert not wiping.stale(b"left of a deleted ro", [b"something else entirely", b"short"])
    assert list(wiping.gaps(bytes(4096), 4096)) == []


@pytest.mark.long("test_no_byte_is_left")
@pytest.mark.parametrize("seed", range(20))
async def test_no_byte_is_left_after_a_long_life(tmp_path: Path, seed: int) -> None:
    """Users come and go, and what was sent is pruned: pages are split, joined, freed and used again."""
    rng, path = random.Random(seed), tmp_path / "x.db"
    keep = Retention(notifications=30, idempotency_keys=30, quarantine=30, events=30, tombstones=30, audit=30)
    async with SqliteStorage(str(path), replace(CLEAR, retention=keep)) as storage:
        for turn in range(60):
            now = T0 + 10 * turn
            user = f"{USER}-{turn:03}"
            await storage.register([device(user, f"{ADDRESS}-{turn}-{n}") for n in range(rng.randint(1, 9))], now)
            text = b'{"title":"%b"}' % (f"{TEXT} {turn:03} ".encode() * rng.randint(1, 60))
            for _ in range(rng.randint(1, 12)):
                made = submission(Target.user(user), now=now, idempotency_key=f"{user}-{rng.random()}")
                await post(storage, replace(made, content=text))
            await settle_all(
                storage, await storage.lease("w", "default", "apns", 1, limit=40, now=now, until=now + 5), now
            )
            while await storage.prune(now, limit=100):
                pass
            gone = f"{USER}-{rng.randrange(turn + 1):03}"
            await storage.erase_user("default", gone, now)
            left = bytes_of(path)
            assert gone.encode() not in left
            assert f"{TEXT} {gone[-3:]} ".encode() not in left
