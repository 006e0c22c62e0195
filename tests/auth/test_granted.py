"""Keys in the database as one process knows them: what another process revoked, a database that is away, another app's,
ended ones, the wrong kind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fanout.bootstrap import SystemClock
from fanout.config import ServiceSettings
from fanout.core.access import Grant
from fanout.errors import StorageUnavailable, UsageError
from fanout.plugin import Secret, StorageContext
from fanout.registry import Registry
from fanout.service.auth import Authenticator, AuthError, Caller, new_api_key, new_user_key, user_token
from fanout.service.auth.granted import Granted
from fanout.service.auth.granting import key_of
from fanout.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


class Access:
    """The facet of a database that may be away, or say nothing."""

    def __init__(self, of: Any) -> None:
        self.of = of
        self.away = False
        self.held: asyncio.Event | None = None
        self.reads = self.writes = 0

    async def grants(self) -> list[Grant]:
        self.reads += 1
        found: list[Grant] = await self.of.grants()
        if self.held is not None:
            await self.held.wait()
        if self.away:
            raise StorageUnavailable("The database is away.")
        return found

    async def used(self, moments: Any) -> None:
        self.writes += 1
        if self.away:
            raise StorageUnavailable("The database is away.")
        await self.of.used(moments)


@dataclass
class Rig:
    """One process's view of a database, which others write as well."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    ended: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.storage: Any = Registry().make_storage("memory:", StorageContext(clock=self.clock))
        self.others = self.storage.access
        self.access = self.storage.access = Access(self.others)
        self.granted = Granted(
            self.storage.access, self.clock, lambda: ("default", "shop"), self.note, pause=self.pause
        )
        self.auth = Authenticator(ServiceSettings(), self.clock)
        self.auth.granted = self.granted

    def note(self, apps: Collection[str]) -> None:
        self.ended.append(set(apps))

    async def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def make(self, app: str = "default", **more: Any) -> tuple[Grant, Secret]:
        grant, secret = key_of(app, self.clock.now(), **more)
        assert await self.others.grant(grant, self.clock.now(), by="test")
        return grant, secret

    async def revoke(self, grant: Grant) -> None:
        assert await self.others.revoke(grant.app, grant.id, self.clock.now(), by="test")

    async def caller(self, credential: Secret | str) -> Caller:
        text = credential if isinstance(credential, str) else credential.reveal()
        return await self.auth.authenticate({"authorization": f"Bearer {text}"})

    async def refused(self, credential: Secret | str) -> tuple[int, str]:
        with pytest.raises(AuthError) as caught:
            await self.caller(credential)
        return caught.value.status, caught.value.reason


async def test_a_key_that_another_process_made_serves_at_once() -> None:
    rig = Rig()
    await rig.granted.read()
    grant, key = await rig.make("shop", role="send", name="billing")
    found = await rig.caller(key)
    assert (found.app, found.user, found.client_id, found.role, found.kind) == ("shop", None, grant.id, "send", "key")
    assert key.reveal() not in repr(await rig.others.grants())
    assert grant.proof.startswith("sha256:")
    assert rig.ended == []


async def test_a_key_that_another_process_revoked_is_refused_within_five_seconds() -> None:
    rig = Rig()
    grant, key = await rig.make()
    assert (await rig.caller(key)).client_id == grant.id
    reads = rig.access.reads
    assert (await rig.caller(key)).client_id == grant.id
    assert rig.access.reads == reads, "one that is known costs no reading"
    await rig.revoke(grant)
    rig.clock.advance(4.0)
    assert await rig.refused(key) == (401, "key"), "although nothing read in between"
    assert rig.ended == [], "a caller's key has no streams"


async def test_the_streams_of_a_revoked_signers_app_are_looked_at_and_no_others() -> None:
    rig = Rig()
    signer, _ = await rig.make("shop", kind="signer")
    await rig.make(kind="signer")
    await rig.granted.read()
    assert rig.ended == [], "one that is new has ended nothing"
    await rig.revoke(signer)
    await rig.granted.read()
    assert rig.ended == [{"shop"}]


async def test_a_key_of_a_role_that_this_version_does_not_know_allows_nothing() -> None:
    rig = Rig()
    grant, key = key_of("default", rig.clock.now())
    for strange in (replace(grant, role="root"), replace(grant, kind="robot")):  # type: ignore[arg-type]
        assert await rig.others.grant(strange, rig.clock.now(), by="a later version")
        assert await rig.refused(key) == (401, "key")
        await rig.revoke(strange)


@pytest.mark.parametrize("steady", [False, True])
async def test_while_the_database_is_away_what_it_confirmed_serves_for_a_minute(steady: bool) -> None:
    rig = Rig()
    grant, key = await rig.make()
    other, unknown = await rig.make()
    await rig.caller(key)
    await rig.revoke(other)
    await rig.granted.read()
    rig.access.away = True
    for _ in range(59 if steady else 1):
        rig.clock.advance(1.0 if steady else 59.0)
        await rig.granted.read()
        assert (await rig.caller(key)).client_id == grant.id
        assert await rig.refused(unknown) == (503, "away"), "never 401: it may have been made since"
    rig.clock.advance(1.5)
    assert await rig.refused(key) == (503, "away"), "a use confirms nothing"
    rig.access.away = False
    await rig.granted.read()
    assert (await rig.caller(key)).client_id == grant.id
    assert await rig.refused(unknown) == (401, "key")


async def test_a_database_that_was_never_read_and_one_that_says_nothing_let_nobody_in() -> None:
    rig = Rig()
    _, key = await rig.make()
    rig.access.away = True
    assert await rig.refused(key) == (503, "away")
    rig.access.away = False
    await rig.granted.read()
    await rig.caller(key)
    rig.clock.advance(61.0)
    rig.access.held = asyncio.Event()
    asking = asyncio.ensure_future(rig.refused(key))
    await asyncio.sleep(0)
    rig.access.away = True
    rig.access.held.set()
    assert await asking == (503, "away")


async def test_a_refusal_that_says_503_says_when_to_ask_again() -> None:
    rig = Rig()
    rig.access.away = True
    with pytest.raises(AuthError) as caught:
        await rig.caller(new_api_key().key)
    assert caught.value.headers == {"Retry-After": "2"}


async def test_however_many_unknown_keys_come_the_database_is_read_four_times_a_second() -> None:
    rig = Rig()
    await rig.granted.read()
    began, reads = rig.clock.monotonic(), rig.access.reads
    for _ in range(20):
        answers = await asyncio.gather(*(rig.refused(new_api_key().key) for _ in range(50)))
        assert set(answers) == {(401, "key")}
    assert rig.access.reads - reads <= (rig.clock.monotonic() - began) * 4 + 1
    for malformed in ("fak_", "fak_0123456789ab_short", "fut_x", f"fak_0123456789ab_{'x' * 44}"):
        assert (await rig.refused(malformed))[0] == 401
    assert rig.access.reads - reads <= (rig.clock.monotonic() - began) * 4 + 1, "what is no key asks for nothing"


async def test_a_key_made_while_a_reading_is_under_way_is_not_taken_for_unknown() -> None:
    rig = Rig()
    await rig.granted.read()
    rig.access.held = asyncio.Event()
    first = asyncio.ensure_future(rig.refused(new_api_key().key))
    for _ in range(5):
        await asyncio.sleep(0)
    _, key = await rig.make()  # the reading under way has seen what was there before
    second = asyncio.ensure_future(rig.caller(key))
    for _ in range(5):
        await asyncio.sleep(0)
    rig.access.held.set()
    assert await first == (401, "key")
    assert (await second).app == "default"


async def test_a_key_of_an_app_that_the_file_no_longer_has_lets_nobody_in() -> None:
    rig = Rig()
    grant = Grant(id="0" * 12, app="former", kind="caller", proof="sha256:" + "0" * 64)
    await rig.others.grant(grant, 0.0, by="test")
    await rig.others.grant(Grant(id="h.example.com", app="former", kind="host"), 0.0, by="test")
    await rig.granted.read()
    assert await rig.granted.find(grant.id) is None
    assert not rig.granted.hosts


async def test_a_key_ends_by_the_clock_of_the_database() -> None:
    rig = Rig(VirtualClock(1_800_000_000.0))  # what `clock_of` gives is the storage's own where it has one
    ends = "2027-01-15T08:00:10Z"
    _, key = await rig.make(expires=ends)
    _, signer = await rig.make(kind="signer", expires=ends)
    token = user_token(signer, "default", "alice", now=rig.clock.now())
    assert (await rig.caller(key)).ends_at == (await rig.caller(token)).ends_at == 1_800_000_010.0
    rig.clock.advance(10.0)
    assert await rig.refused(key) == await rig.refused(token) == (401, "expired")
    with pytest.raises(UsageError, match="past"):
        key_of("default", rig.clock.now(), expires=ends)


async def test_a_signer_signs_for_its_own_app_and_calls_for_nobody() -> None:
    rig = Rig()
    grant, signer = await rig.make("shop", kind="signer")
    caller, key = await rig.make("shop")
    now = rig.clock.now()
    found = await rig.caller(user_token(signer, "shop", "alice", now=now))
    assert (found.app, found.user, found.kind, found.client_id) == ("shop", "alice", "delegated", grant.id)
    assert await rig.refused(user_token(signer, "default", "alice", now=now)) == (401, "app")
    assert (await rig.refused(signer))[0] == 401
    tail = signer.reveal()[len("fsk_") :]
    assert await rig.refused(f"fak_{tail}") == (401, "key"), "its secret is no caller's key"
    other = user_token(Secret(f"fus_{tail}"), "shop", "alice", now=now)
    assert await rig.refused(other) == (401, "signature"), "nor the key of a MAC"
    mac = new_user_key().secret.reveal()
    forged = user_token(Secret(f"fus_{caller.id}_{mac[-43:]}"), "shop", "alice", now=now)
    assert await rig.refused(forged) == (401, "signature"), "and a caller's id signs nothing"
    public = grant.proof.removeprefix("ed25519:")
    for made in (f"fus_{grant.id}_{public}", f"fsk_{grant.id}_{public}"):
        assert await rig.refused(user_token(Secret(made), "shop", "alice", now=now)) == (401, "signature")
    body, _, signature = user_token(signer, "shop", "alice", now=now).rpartition(".")
    other = "B" if signature[0] == "A" else "A"
    for wrong in (other + signature[1:], signature[:43], signature + "A"):
        assert (await rig.refused(f"{body}.{wrong}"))[0] == 401
    assert (await rig.caller(key)).client_id == caller.id


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"role": "user"}, "--kind signer"),
        ({"role": "admin"}, "operator"),
        ({"kind": "signer", "role": "app"}, "kind caller"),
        ({"kind": "host"}, "signer"),
        ({"expires": "soon"}, "2030-01-31"),
        ({"expires": "9999-12-31"}, "year 5138"),
        ({"expires": "9999-12-31T23:59:59-23:59"}, "year 5138"),
        ({"name": "x" * 201}, "200"),
        ({"name": "a\nb"}, "printable"),
    ],
)
def test_what_makes_no_key_is_said(given: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        key_of("default", 0.0, **given)


async def test_uses_are_written_once_a_minute_and_in_no_request() -> None:
    rig = Rig()
    grant, key = await rig.make()
    await rig.caller(key)
    for _ in range(100):
        await rig.caller(key)
    assert rig.access.writes == 0
    steps = asyncio.Semaphore(0)

    async def pause(seconds: float) -> None:
        await steps.acquire()
        rig.clock.advance(seconds)

    rig.granted._pause = pause
    await rig.granted.start()
    for _ in range(300):
        await rig.caller(key)
        steps.release()
        for _ in range(4):
            await asyncio.sleep(0)
    assert 1 <= rig.access.writes <= 11, "ten minutes"
    (kept,) = await rig.others.grants()
    assert kept.used_at is not None
    assert rig.clock.now() - kept.used_at <= 62.0
    last = rig.clock.now()
    await rig.caller(key)
    await rig.granted.stop()
    (kept,) = await rig.others.grants()
    assert kept.used_at == last, "what was not written yet is, at the end"


async def test_uses_that_could_not_be_written_are_kept() -> None:
    rig = Rig()
    _, key = await rig.make()
    await rig.caller(key)
    rig.access.away = True
    await rig.granted._write_uses()
    rig.access.away = False
    await rig.granted._write_uses()
    (kept,) = await rig.others.grants()
    assert kept.used_at == rig.clock.now()


async def test_without_a_database_the_keys_of_the_file_are_all_there_are() -> None:
    async with Authenticator(ServiceSettings(), SystemClock()) as auth:
        with pytest.raises(AuthError) as caught:
            await auth.authenticate({"authorization": f"Bearer {new_api_key().key.reveal()}"})
    assert (caught.value.status, caught.value.reason) == (401, "key")
