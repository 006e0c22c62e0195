"""A SQLite file with an address key: the same contract, and nothing of an address in clear, whatever was done before or
goes wrong."""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import blake2b
from itertools import count
from pathlib import Path

import apsw
import pytest

from fanout.core.address import Address
from fanout.core.codec import digest
from fanout.core.endpoint import Registration
from fanout.core.feed import SubscriptionRequest
from fanout.core.model import Target
from fanout.core.records import AddressMoved, EndpointFilter, Settlement
from fanout.errors import StorageError, StorageRefused
from fanout.plugin import Sealer, StorageContext
from fanout.storage.sql import sealing as operations
from fanout.storage.sqlite import sealing
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage import CHECKS, run_check
from fanout.testing.storage_kit import T0, device, lease_all, post, submission

pytestmark = pytest.mark.anyio

FIRST, SECOND = os.urandom(32), os.urandom(32)
CLEAR = StorageContext(clock=VirtualClock(T0))


def keyed(*keys: bytes) -> StorageContext:
    return dataclasses.replace(CLEAR, sealer=Sealer(keys))


SEALED = keyed(FIRST)
ALL = EndpointFilter(state=None)


def opened(path: Path, context: StorageContext = SEALED) -> SqliteStorage:
    return SqliteStorage(str(path), context, offload=Inline)


async def refusal(path: Path, context: StorageContext) -> str:
    with pytest.raises(StorageRefused) as caught:
        async with opened(path, context):
            pass
    return str(caught.value)


async def seal(path: Path, context: StorageContext = SEALED) -> int:
    return await sealing.seal(str(path), context, lambda done: None)


def bytes_of(path: Path) -> bytes:
    """The file with its log and its index, as they lie on the disk."""
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))


def traces(path: Path, address: Address) -> list[str]:
    """What the file shows of an address: its texts, in whatever case or encoding, and its digest without a key."""
    found = bytes_of(path).lower()
    forms = {
        "value": address.value.encode(),
        "identity": address.identity.encode(),
        "hex": address.value.encode().hex().encode(),
    }
    plain = bytes.fromhex(address.digest)
    forms |= {"digest": plain, "digest in hex": plain.hex().encode()}
    forms["target"] = digest(b"", Target("addresses", binding="apns", addresses=(address,)), None)
    return [name for name, form in forms.items() if form.lower() in found]


def tokens(name: str) -> Registration:
    return device("alice", f"very-secret-{name}", tags=["news"])


@pytest.mark.parametrize("name", CHECKS)
async def test_the_contract_holds_with_a_key(name: str, tmp_path: Path) -> None:
    numbers = count()
    last = [tmp_path / "none.db"]

    @asynccontextmanager
    async def fresh(context: StorageContext) -> AsyncIterator[SqliteStorage]:
        last[0] = tmp_path / f"{next(numbers)}.db"
        async with opened(last[0], dataclasses.replace(context, sealer=Sealer([FIRST]))) as storage:
            yield storage

    @asynccontextmanager
    async def again(context: StorageContext) -> AsyncIterator[SqliteStorage]:
        async with opened(last[0], dataclasses.replace(context, sealer=Sealer([FIRST]))) as storage:
            yield storage

    await run_check(name, fresh, again)


async def test_nothing_of_an_address_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    one, other, moved, explicit, scheduled, subscribed = (
        tokens(name) for name in ("one", "other", "moved", "explicit", "scheduled", "subscribed")
    )
    async with opened(path) as storage:
        (endpoint,) = await storage.register([one], T0)
        await storage.register([one, dataclasses.replace(one, user="bob"), other], T0 + 1)
        (again,) = await storage.register([one], T0 + 2)
        assert again.id == endpoint.id
        await storage.intern("default", "apns", [explicit.address], T0)
        for due in (T0 + 3, T0 + 999):
            sub = submission(
                Target("addresses", binding="apns", addresses=(explicit.address, scheduled.address)),
                now=T0 + 3,
                due_at=due,
                collapse_key=f"score {due}",
                idempotency_key=f"key {due}",
            )
            sub = dataclasses.replace(sub, digest=digest(sub.content, sub.target, due))
            await post(storage, sub)
            (replay,) = await storage.put([dataclasses.replace(sub, id="another")], T0 + 4)
            assert (replay.id, replay.replayed) == (sub.id, True)
        (chunk,) = [chunk for chunk in await lease_all(storage, T0 + 3) if len(chunk.ids) == 2]
        gone = AddressMoved(chunk.ids[0], 1, T0 + 4, moved.address)
        await storage.settle([Settlement(chunk.id, chunk.epoch, changes=[gone])], T0 + 4)
        await storage.feed.subscribe(
            SubscriptionRequest(
                app="default",
                user="carol",
                unsid="u" * 32,
                device="phone",
                platform="ios",
                receive="push",
                expires_at=T0 + 999,
                registration=dataclasses.replace(subscribed, user="carol"),
            ),
            T0,
        )
        await storage.remove_endpoints("default", [again.id], T0 + 5)
        assert await storage.restore_endpoints("default", [again.id], T0 + 6) == 1
        assert {each.address for each in await storage.list_endpoints(ALL)} == {
            each.address for each in (one, other, subscribed)
        }
        (row,) = await storage.resolve(array("q", [chunk.ids[0]]), T0)
        assert row.address == moved.address.value
        for each in (one, other, moved, explicit, scheduled, subscribed):
            assert traces(path, each.address) == []
    assert b"very-secret" not in bytes_of(path)


async def test_the_search_finds_what_is_in_clear(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    one = tokens("one")
    async with opened(path, CLEAR) as storage:
        await storage.register([one], T0)
        sub = submission(Target("addresses", binding="apns", addresses=(one.address,)), collapse_key="score")
        await post(storage, sub)
        assert set(traces(path, one.address)) == {"value", "identity", "digest", "target"}


# -- databases and keys that do not fit


async def filled(path: Path, context: StorageContext, devices: int = 12) -> list[Registration]:
    every = [tokens(str(number)) for number in range(devices)]
    async with opened(path, context) as storage:
        await storage.register(every, T0)
        await storage.register([dataclasses.replace(every[0], user="bob")], T0 + 1)
        await storage.erase_user("default", "bob", T0 + 2)
        await storage.remove_endpoints("default", [5], T0 + 3)
    return every


async def test_a_key_for_a_database_in_clear_is_refused_until_it_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    every = await filled(path, CLEAR)
    async with opened(path, CLEAR) as storage:
        before = await storage.list_endpoints(dataclasses.replace(ALL))
    assert "fanout endpoints seal" in await refusal(path, SEALED)
    assert await seal(path) == 11, "what was erased, and the row that it replaced, have no address"
    assert [traces(path, each.address) for each in every] == [[]] * 12
    assert b"very-secret" not in bytes_of(path)
    async with opened(path) as storage:
        assert await storage.list_endpoints(ALL) == before
        assert [each.id for each in await storage.register(every[1:4], T0 + 5)] == [2, 3, 4], "found by the keyed hash"
    assert await seal(path) == 0


async def test_without_the_key_a_sealed_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await filled(path, SEALED)
    assert "addresses.key_file" in await refusal(path, CLEAR)
    text = await refusal(path, keyed(SECOND))
    assert SEALED.sealer is not None
    assert SEALED.sealer.ids[0] in text
    with pytest.raises(StorageRefused):
        await seal(path, keyed(SECOND))


async def test_who_has_it_open_without_the_key_does_nothing_more_once_it_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with opened(path, CLEAR) as storage:
        (endpoint,) = await storage.register([tokens("one")], T0)
        await post(storage, submission())
        (chunk,) = await lease_all(storage)
        await seal(path)
        for call in (
            storage.register([tokens("two")], T0),
            storage.intern("default", "apns", [tokens("two").address], T0),
            storage.resolve(chunk.ids, T0),
            storage.get_endpoint("default", endpoint.id),
            storage.list_endpoints(ALL),
        ):
            with pytest.raises(StorageRefused, match="start again"):
                await call
    assert b"very-secret" not in bytes_of(path)


@pytest.mark.parametrize("rotating", [False, True])
async def test_broken_off_anywhere_it_goes_on(tmp_path: Path, rotating: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_BATCH", 3)
    path = tmp_path / "x.db"
    every = await filled(path, SEALED if rotating else CLEAR)
    context = keyed(SECOND, FIRST) if rotating else SEALED

    class Killed(Exception):
        pass

    def kill(done: int) -> None:
        raise Killed

    runs = 0
    while True:
        try:
            await sealing.seal(str(path), context, kill)
        except Killed:
            runs += 1
        else:
            break
        if rotating:
            async with opened(path, context) as storage:
                assert len(await storage.list_endpoints(ALL)) == 11
        else:
            assert "come to its end" in await refusal(path, SEALED)
            assert "addresses.key_file" in await refusal(path, CLEAR)
    assert runs == 5
    assert b"very-secret" not in bytes_of(path)
    async with opened(path, keyed(SECOND) if rotating else SEALED) as storage:
        found = await storage.list_endpoints(ALL)
        assert {each.address for each in found} == {each.address for each in every[1:]}


async def test_a_key_is_replaced_under_running_programs(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await filled(path, SEALED)
    async with opened(path, keyed(FIRST, SECOND)) as elder, opened(path, keyed(SECOND, FIRST)) as newer:
        (before,) = await newer.register([tokens("before")], T0)
        assert await seal(path, keyed(SECOND, FIRST)) == 12
        (after,) = await elder.register([tokens("after")], T0)
        rows = await newer.resolve(array("q", [before.id, after.id]), T0)
        assert {row.address for row in rows} == {tokens("before").address.value, tokens("after").address.value}
        assert (await elder.register([tokens("before")], T0 + 1))[0].id == before.id
    async with opened(path, keyed(SECOND)) as storage:
        assert len(await storage.list_endpoints(ALL)) == 13
    assert "put the missing line back" in await refusal(path, SEALED)


async def test_an_address_that_was_changed_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with opened(path) as storage:
        one, two, three = await storage.register([tokens("1"), tokens("2"), device("bob", "3", binding="fcm")], T0)
        with raw(path) as connection:
            connection.execute("UPDATE endpoint SET address = substr(address, 1, 60) || 'AAAA' WHERE id = ?", (two.id,))
            connection.execute(
                "UPDATE endpoint SET address = (SELECT address FROM endpoint WHERE id = ?) WHERE id = ?",
                (one.id, three.id),
            )
        rows = {row.id: row for row in await storage.resolve(array("q", [one.id, two.id, three.id]), T0)}
        assert rows[one.id].address == tokens("1").address.value
        assert {(rows[id].address, rows[id].state) for id in (two.id, three.id)} == {("", "unreadable")}
        with pytest.raises(StorageError, match="cannot be opened"):
            await storage.get_endpoint("default", two.id)


async def test_a_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await filled(path, SEALED)
    with raw(path) as connection:
        connection.execute("UPDATE seal SET record = replace(record, substr(record, 5, 4), 'AAAA')")
    assert "was changed" in await refusal(path, SEALED)
    with raw(path) as connection:
        connection.execute("UPDATE seal SET record = 'x'")
    assert "cannot be read" in await refusal(path, SEALED)


async def test_two_programs_that_open_a_new_file_agree(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with opened(path) as one, opened(path) as two:
        (first,) = await one.register([tokens("one")], T0)
        (second,) = await two.register([tokens("one")], T0 + 1)
    assert first.id == second.id


@contextmanager
def raw(path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(path))
    try:
        yield connection
    finally:
        connection.close()


def test_the_digest_that_is_searched_for_is_the_one_without_a_key() -> None:
    assert tokens("one").address.digest == blake2b(b"id-very-secret-one", digest_size=16).hexdigest()
