"""A database that lacks the latest rows: a standby that was promoted with a lag, a backup. No number is given twice
there."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.feed import FeedQuery
from fanout.core.model import Target
from fanout.errors import StorageError
from fanout.storage.postgres.greeting import Identity
from fanout.storage.postgres.switching import same, text
from fanout.testing.storage_kit import T0, device, submission
from fanout_kit.postgres import MISSING, PostgresServer, find_programs

from .test_connection import context
from .test_ground import _while_unavailable, at

pytestmark = [pytest.mark.anyio, pytest.mark.external]


def copied(server: PostgresServer, name: str) -> None:
    """The database is replaced by a copy of itself, as by a restored dump."""
    server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    server.sql(f"ALTER DATABASE {name} RENAME TO {name}_old")
    server.sql(f"CREATE DATABASE {name} TEMPLATE {name}_old")


async def test_numbers_go_on_far_ahead_and_readers_are_told(server: PostgresServer) -> None:
    name = server.fresh()
    async with at(server.url(name)) as storage:
        (one,) = await storage.register([device("alice", "1", app="ours")], T0)
        await storage.remove_endpoints("ours", [one.id], T0)
        (event,) = await storage.events()
        identity = await storage.feed.identity()
        head = (await storage.feed.read("ours", "alice", FeedQuery(after=0, status=None, limit=10), T0)).head
        copied(server, name)
        (two,) = await _while_unavailable(lambda: storage.register([device("zoe", "9", app="theirs")], T0))
        assert two.id - one.id >= 2**32
        assert storage.incarnation == 1
        await storage.remove_endpoints("theirs", [two.id], T0)
        new = await storage.events(after=event.id)
        assert [each.kind for each in new] == ["database.switched", "endpoint.removed"], "led by what says so"
        assert new[0].app == "ours"
        assert new[0].id - event.id >= 2**32
        assert await storage.feed.identity() != identity
        assert (
            await storage.feed.read("ours", "alice", FeedQuery(after=0, status=None, limit=10), T0)
        ).head >= head + 2**32
        numbers = server.sql("SELECT last_value FROM fanout.app_id_seq", name)
        assert 2**20 <= int(numbers) < 2**21


async def test_many_processes_find_it_out_and_one_moves_the_numbers(server: PostgresServer) -> None:
    name = server.fresh()
    async with at(server.url(name)) as first, at(server.url(name)) as second, at(server.url(name)) as third:
        storages = [first, second, third]
        (one,) = await first.register([device("alice", "1", app="ours")], T0)
        for each in storages:
            assert await each.count_endpoints("ours", Target.all()) == {"apns": 1}
        copied(server, name)
        made = await asyncio.gather(
            *(
                _while_unavailable(lambda each=each, n=n: each.register([device("bob", str(n), app="ours")], T0))
                for n, each in enumerate(storages)
            )  # type: ignore[misc]
        )
        ids = [endpoint.id for (endpoint,) in made]
        assert all(2**32 <= id - one.id < 2**38 for id in ids), "moved once"
        assert [each.incarnation for each in storages] == [1, 1, 1]
        async with at(server.url(name)) as fourth:
            (later,) = await fourth.register([device("carl", "7", app="ours")], T0)
            assert later.id - max(ids) < 2**20
        kinds = [event.kind for event in await first.events()]
        assert kinds.count("database.switched") == 1


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, Path]]:
    if find_programs() is None:
        pytest.skip(MISSING)
    with PostgresServer.start(settings={"wal_level": "replica"}) as server:
        yield server, server.folder / "copy"


@contextmanager
def promoted(server: PostgresServer, copy: Path) -> Iterator[None]:
    """The first server is gone, and the copy of its files is a standby that is promoted, behind the same address."""
    data = server.folder / "data"
    server.stop("immediate")
    data.rename(server.folder / "lost")
    copy.rename(data)
    (data / "standby.signal").touch()
    shutil.chown(data / "standby.signal", *_owner(server.folder))
    server.up()
    server.sql("SELECT pg_promote(true, 60)")
    yield


def _owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


async def test_a_standby_promoted_with_a_lag_gives_no_number_to_another_tenant(
    pair: tuple[PostgresServer, Path],
) -> None:
    server, copy = pair
    name = server.fresh()
    location = server.url(name).partition(":")[2]
    from fanout.storage.postgres.store import PostgresStorage

    async with PostgresStorage(location, context(), believe_callers=True) as storage:
        (old,) = await storage.register([device("old", "0", app="old")], T0)
        await asyncio.to_thread(_copy, server, copy)
        # What the standby lacks: an app, its device, and what was sent to it.
        (lost,) = await storage.register([device("alice", "1", app="lost")], T0)
        sub = replace(submission(Target.user("alice")), app="lost")
        await storage.put([sub], T0)
        with promoted(server, copy):
            (zoe,) = await _while_unavailable(lambda: storage.register([device("zoe", "2", app="other")], T0))
            assert zoe.id not in (old.id, lost.id)
            assert await storage.count_endpoints("lost", Target.all()) == {}
            assert await storage.get_endpoint("other", lost.id) is None
            again = replace(submission(Target.user("alice")), app="lost")
            (put,) = await storage.put([again], T0)
            assert put.total == 0, "nobody else's device is taken for hers"
            assert await storage.get_endpoint("old", old.id) is not None
            assert (await storage.put([replace(submission(Target.endpoints([lost.id])), app="lost")], T0))[0].total == 0


def _copy(server: PostgresServer, copy: Path) -> None:
    """The files of the server at a moment, in good order, which then goes on."""
    server.stop("fast")
    subprocess.run(["cp", "-a", str(server.folder / "data"), str(copy)], check=True)
    server.up()


@given(st.tuples(st.sampled_from(["", "7", "8"]), st.sampled_from(["1", "2"]), st.integers(1, 2), st.integers(1, 2)))
def test_who_may_not_ask_for_the_system_goes_by_the_rest(values: tuple[str, str, int, int]) -> None:
    recorded = Identity("7", "1", 1, 1)
    assert same(text(recorded), Identity(*values)) == (values[0] in ("", "7") and values[1:] == ("1", 1, 1))
    assert same(text(Identity(*values)), recorded) == (values[0] in ("", "7") and values[1:] == ("1", 1, 1))


async def test_a_backup_of_the_same_timeline_is_known_by_its_lower_numbers(server: PostgresServer) -> None:
    name = server.fresh()
    async with at(server.url(name)) as storage:
        (one,) = await storage.register([device("alice", "1", app="ours")], T0)
        await storage.changes()
        storage._database._highest += 1000
        with suppress(StorageError):
            await storage.changes()
        (two,) = await _while_unavailable(lambda: storage.register([device("bob", "2", app="ours")], T0))
        assert two.id - one.id >= 2**32
        assert storage.incarnation == 1
