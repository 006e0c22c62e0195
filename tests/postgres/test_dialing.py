"""Several hosts in one URL: which is dark, a standby or wrong keeps nobody from the one that takes writes."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import asyncpg
import pytest

from fanout.core.model import Target
from fanout.errors import ConfigurationError, StorageUnavailable
from fanout.storage.postgres import dialing, pool
from fanout.storage.postgres.store import PostgresStorage
from fanout.storage.postgres.url import parse
from fanout.testing.storage_kit import T0, device
from fanout_kit.postgres import PostgresServer

from .bouncer import bouncer
from .test_connection import context
from .test_ground import _while_unavailable, at

pytestmark = [pytest.mark.anyio, pytest.mark.external]


@asynccontextmanager
async def dark() -> AsyncIterator[int]:
    """A host that takes connections and says nothing: the port."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        gone.set()
        server.close()
        await server.wait_closed()


@contextmanager
def unanswered() -> Iterator[int]:
    """A port whose handshakes get no answer, as of a host without power: its queue of connections is full (Linux drops
    the SYN)."""
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            attempt = waiting.enter_context(socket.socket())
            attempt.setblocking(False)
            attempt.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@contextmanager
def refusing() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def several(server: PostgresServer, name: str, *ports: int) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return server.url(name).replace(f"127.0.0.1:{server.port}", hosts)


async def test_a_dark_host_and_one_that_refuses_are_passed(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialing, "STAGGER", 0.01)
    name = server.fresh()
    async with dark() as silent:
        with refusing() as closed, unanswered() as unpowered:
            for ports in (
                (unpowered, server.port),
                (silent, server.port),
                (closed, server.port),
                (silent, unpowered, closed, server.port),
                (server.port, silent),
            ):
                async with at(several(server, name, *ports)) as storage:
                    await storage.register([device("alice", "1")], T0)
                    # A second connection goes to the good one first.
                    await asyncio.gather(*(storage.count_endpoints("default", Target.all()) for _ in range(6)))


async def test_the_environment_names_several_hosts(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "STAGGER", 0.01)
    name = server.fresh()
    async with dark() as silent:
        monkeypatch.setenv("PGHOST", "127.0.0.1,127.0.0.1")
        monkeypatch.setenv("PGPORT", f"{silent},{server.port}")
        async with at(f"postgresql://fanout:{server.password}@/{name}") as storage:
            assert await storage.register([device("alice", "1")], T0)


@pytest.mark.parametrize("hosts", [["one"], ["one", "two"]], ids=len)
async def test_no_connection_is_left_by_a_caller_that_is_cancelled_at_each_pass(
    hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a task group of anyio cancels: again and again, until the task has ended."""
    monkeypatch.setattr(dialing, "STAGGER", 0)
    for passes in range(30):
        made: list[str] = []
        dropped: list[str] = []

        async def connect(host: str, made: list[str] = made) -> str:
            for _ in range(4 if host == "one" else 6):
                await asyncio.sleep(0)
            made.append(host)
            return host

        caller = asyncio.ensure_future(dialing.race(hosts, connect, dropped.append, limit=60))
        for _ in range(passes):
            await asyncio.sleep(0)
        while not caller.done():
            caller.cancel()
            await asyncio.sleep(0)
        for _ in range(30):
            await asyncio.sleep(0)

        kept = [] if caller.cancelled() else [caller.result()[1]]
        assert sorted(made) == sorted(dropped + kept), passes


async def test_an_attempt_that_is_cancelled_when_it_has_just_begun_leaves_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialing, "STAGGER", 0)
    left: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: left.append(what))
    async with dark() as silent:
        for passes in range(12):
            begun = asyncio.Event()

            async def connect(place: str, begun: asyncio.Event = begun, passes: int = passes) -> None:
                if place == "dark":
                    begun.set()
                    await asyncpg.connect(f"postgresql://u:p@127.0.0.1:{silent}/d?sslmode=prefer")
                await begun.wait()
                for _ in range(passes):
                    await asyncio.sleep(0)

            assert await dialing.race(["good", "dark"], connect, lambda _: None, limit=60) == ("good", None)
        await asyncio.sleep(0)
        gc.collect()
    assert not left


async def test_where_all_are_dark_one_deadline_ends_it(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(dialing, "STAGGER", 0.01)
    async with dark() as one, dark() as two, dark() as three:
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            async with at(several(server, "postgres", one, two, three)):
                pass


async def test_what_a_server_has_said_is_told_rather_than_that_another_is_dark(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialing, "STAGGER", 0.01)
    with refusing() as closed, pytest.raises(StorageUnavailable, match="no such database"):
        async with at(several(server, "nowhere_at_all", server.port, closed)):
            pass


@pytest.mark.parametrize("wish", ["any", "standby", "prefer-standby", "read-only", "nonsense", ""])
def test_only_a_server_that_takes_writes_can_be_wished_for(wish: str) -> None:
    with pytest.raises(ConfigurationError, match="target_session_attrs"):
        parse(f"//u@h/d?target_session_attrs={wish}")


@pytest.mark.parametrize("wish", ["read-write", "primary"])
def test_a_wish_that_goes_without_saying_is_taken(wish: str) -> None:
    options = parse(f"//u:p@a:1,b/d?target_session_attrs={wish}&sslmode=require")
    assert options.hosts == ("postgresql://u:p@a:1/d?sslmode=require", "postgresql://u:p@b/d?sslmode=require")


def test_hosts_in_the_query_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    monkeypatch.delenv("PGPORT", raising=False)
    assert parse("//u@/d?host=a,b&port=1,2").hosts == (
        "postgresql://u@/d?host=a&port=1",
        "postgresql://u@/d?host=b&port=2",
    )
    assert parse("//u@/d?host=a,b&port=7").hosts[1] == "postgresql://u@/d?host=b&port=7"
    assert parse("//u@/d").hosts == ("postgresql://u@/d",)
    assert parse("//u@[::1]:5,h/d").hosts == ("postgresql://u@[::1]:5/d", "postgresql://u@h/d")


@pytest.mark.parametrize("mode", ["transaction"])
async def test_behind_a_pooler_each_transaction_looks_where_it_is(server: PostgresServer, mode: str) -> None:
    """The pooler keeps our connections while its own lead to another database."""
    name = server.fresh()
    with bouncer(server, mode, server_fast_close="1") as port:
        url = server.url(name, prepared="off").replace(f":{server.port}/", f":{port}/")
        async with PostgresStorage(url.partition(":")[2], context(), believe_callers=True) as storage:
            (one,) = await storage.register([device("alice", "1", app="ours")], T0)
            server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            server.sql(f"ALTER DATABASE {name} RENAME TO {name}_old")
            server.sql(f"CREATE DATABASE {name} TEMPLATE {name}_old")
            (two,) = await _while_unavailable(lambda: storage.register([device("zoe", "2", app="theirs")], T0))
            assert two.id - one.id >= 2**32
            assert storage.incarnation >= 1
            # Under a connection of ours that stays, what it leads to changes.
            server.sql("ALTER SCHEMA fanout RENAME TO gone", name)
            async with at(server.url(name)) as other:
                await other.register([device("yan", "9", app="first")], T0)
            before = storage.incarnation
            await _while_unavailable(lambda: storage.register([device("alice", "3", app="ours")], T0))
            assert storage.incarnation > before
            assert await storage.count_endpoints("first", Target.all()) == {"apns": 1}
