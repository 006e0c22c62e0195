"""A PostgreSQL database with an address key: nothing of an address in clear in the server's files, and one in clear can
be sealed."""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fanout.core.codec import digest
from fanout.core.endpoint import Registration
from fanout.core.model import Target
from fanout.core.records import EndpointFilter
from fanout.errors import StorageRefused
from fanout.plugin import Sealer, StorageContext
from fanout.storage.postgres import sealing
from fanout.storage.sql import sealing as operations
from fanout.testing.clock import VirtualClock
from fanout.testing.storage import CHECKS, Maker, run_check
from fanout.testing.storage_kit import T0, device, submission
from fanout_kit.postgres import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.external]

FIRST, SECOND = os.urandom(32), os.urandom(32)
CLEAR = StorageContext(clock=VirtualClock(T0))
ALL = EndpointFilter(state=None)
ABOUT_ADDRESSES = [
    name for name, check in CHECKS.items() if check.__module__.endswith(("storage_directory", "storage_subscriptions"))
]


_NOTHING = bytes(1024)
"""Most of the server's files, which need not be looked through for each text."""


def keyed(*keys: bytes) -> StorageContext:
    return dataclasses.replace(CLEAR, sealer=Sealer(keys))


SEALED = keyed(FIRST)


def tokens(count: int) -> list[Registration]:
    """Devices whose tokens occur nowhere else on this server."""
    return [device("alice", secrets.token_hex(16), tags=["news"]) for _ in range(count)]


def found(server: PostgresServer, devices: list[Registration], since: float, *, log: bool = True) -> list[str]:
    """The server's files that show an address, or its digest without a key; `log`: its write-ahead log too. Those that
    were not written to since then, before the tokens were made, cannot."""
    server.sql("CHECKPOINT")
    wanted = []
    for each in devices:
        address = each.address
        target = Target("addresses", binding="apns", addresses=(address,))
        wanted += [address.value.encode(), address.identity.encode(), bytes.fromhex(address.digest)]
        wanted += [address.digest.encode(), digest(b"", target, None)]
    shown = []
    for file in (server.folder / "data").rglob("*"):
        if file.is_file() and file.stat().st_mtime >= since and (log or "pg_wal" not in file.parts):
            content = file.read_bytes().replace(_NOTHING, b"")
            shown += [file.name] if any(text in content for text in wanted) else []
    return shown


def location(server: PostgresServer, name: str) -> str:
    return server.url(name).partition(":")[2]


@pytest.mark.parametrize("name", ABOUT_ADDRESSES)
async def test_the_contract_holds_with_a_key(name: str, makers: tuple[Maker, Maker]) -> None:
    def sealed(maker: Maker) -> Maker:
        return lambda context: maker(dataclasses.replace(context, sealer=Sealer([FIRST])))

    await run_check(name, *map(sealed, makers))


async def test_nothing_of_an_address_reaches_the_server(
    server: PostgresServer, open_storage: Callable[..., Any]
) -> None:
    begun = time.time() - 1
    name = server.fresh()
    devices = tokens(15)
    async with open_storage(name, SEALED) as storage:
        endpoints = await storage.register(devices[:9], T0)
        await storage.register([dataclasses.replace(devices[0], user="bob")], T0 + 1)
        await storage.intern("default", "apns", [each.address for each in devices[9:12]], T0)
        target = Target("addresses", binding="apns", addresses=tuple(each.address for each in devices[12:]))
        for due in (T0 + 2, T0 + 999):
            sub = submission(target, now=T0 + 2, due_at=due, collapse_key=f"k {due}", idempotency_key=f"k {due}")
            sub = dataclasses.replace(sub, digest=digest(sub.content, sub.target, due))
            (put,) = await storage.put([sub], T0 + 2)
            (replay,) = await storage.put([dataclasses.replace(sub, id="another")], T0 + 3)
            assert (put.id, replay.id, replay.replayed) == (sub.id, sub.id, True)
        rows = await storage.resolve(array("q", [each.id for each in endpoints]), T0)
        assert {row.address for row in rows} == {each.address.value for each in devices[:9]}
        assert sum((await storage.count_endpoints("default", target)).values()) == 3
    assert found(server, devices, begun) == []
    server.drop(name)


@asynccontextmanager
async def in_clear(
    server: PostgresServer, open_storage: Callable[..., Any], devices: list[Registration]
) -> AsyncIterator[str]:
    name = server.fresh()
    async with open_storage(name, CLEAR) as storage:
        await storage.register(devices, T0)
        await storage.register([dataclasses.replace(devices[0], user="bob")], T0 + 1)
        await storage.intern("default", "apns", [tokens(1)[0].address], T0)
    try:
        yield name
    finally:
        server.drop(name)


async def test_a_database_in_clear_is_sealed(
    server: PostgresServer, open_storage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_BATCH", 7)
    begun = time.time() - 1
    devices = tokens(40)
    async with in_clear(server, open_storage, devices) as name:
        server.sql("ANALYZE", name)
        assert found(server, devices, begun, log=False), "else what follows proves nothing"
        with pytest.raises(StorageRefused, match="fanout endpoints seal"):
            async with open_storage(name, SEALED):
                pass

        class Killed(Exception):
            pass

        def kill(done: int) -> None:
            raise Killed

        async with open_storage(name, CLEAR) as elder:
            before = await elder.list_endpoints(ALL)
            for _ in range(6):
                with pytest.raises(Killed):
                    await sealing.seal(location(server, name), SEALED, kill)
            with pytest.raises(StorageRefused, match="in part"):
                async with open_storage(name, SEALED):
                    pass
            assert await sealing.seal(location(server, name), SEALED, lambda done: None) == 0
            for call in (elder.register(devices[:1], T0), elder.resolve(array("q", [before[0].id]), T0)):
                with pytest.raises(StorageRefused, match="start again"):
                    await call
        assert found(server, devices, begun, log=False) == []
        async with open_storage(name, SEALED) as storage:
            assert await storage.list_endpoints(ALL) == before
            again = await storage.register(devices[1:], T0 + 2)
            assert {each.id for each in again} <= {each.id for each in before}, "found by the keyed hash"


async def test_a_key_is_replaced_under_running_programs(
    server: PostgresServer, open_storage: Callable[..., Any]
) -> None:
    name = server.fresh()
    devices = tokens(30)
    async with open_storage(name, SEALED) as storage:
        await storage.register(devices, T0)
    async with open_storage(name, keyed(FIRST, SECOND)) as elder, open_storage(name, keyed(SECOND, FIRST)) as newer:
        await newer.resolve(array("q", [1]), T0)
        assert await sealing.seal(location(server, name), keyed(SECOND, FIRST), lambda done: None) == 30
        assert await sealing.seal(location(server, name), keyed(SECOND, FIRST), lambda done: None) == 0
        (after,) = await elder.register(tokens(1), T0)
        (row,) = await newer.resolve(array("q", [after.id]), T0)
        assert row.address == after.address.value
    async with open_storage(name, keyed(SECOND)) as storage:
        assert len(await storage.list_endpoints(ALL)) == 31
    with pytest.raises(StorageRefused, match="put the missing line back"):
        async with open_storage(name, SEALED):
            pass
    with pytest.raises(StorageRefused, match="key_file"):
        async with open_storage(name, CLEAR):
            pass
    server.drop(name)
