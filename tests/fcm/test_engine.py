"""The whole path with FCM: what its answers do to an engine's deliveries and endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout.core.policy import Policy
from fanout.engine import Engine
from fanout_fcm.address import RELAYED
from fanout_fcm.simulator import FcmSimulator

pytestmark = pytest.mark.anyio

FAST = Policy(backoff_base=0.02, backoff_throttled=0.02, retry_after_cap=0.02, probe=0.02)
HI = fanout.Notification(title="Hi")


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's 10 s between attempts are judged by the table of outcomes, and not waited for here."""
    monkeypatch.setattr("fanout_fcm.outcome._PAUSE", 0.05)


@asynccontextmanager
async def running(folder: Path, storage: str, **settings: Any) -> AsyncIterator[tuple[Engine, FcmSimulator]]:
    async with FcmSimulator(folder=folder) as google:
        binding = google.settings() | {"rate_per_minute": 600_000, "ramp": 0.0} | settings
        async with fanout.open(storage=storage, transports={"fcm": binding}, policy=FAST) as engine:
            yield engine, google


async def register(engine: Engine, google: FcmSimulator, behaviour: str, count: int, user: str = "u") -> list[int]:
    made = [
        await engine.endpoints.register(user=f"{user}{n}", binding="fcm", address=google.address(n, behaviour))
        for n in range(count)
    ]
    return [endpoint.id for endpoint in made]


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/fanout.db"


async def test_everybody_gets_it_and_the_dead_are_gone(folder: Path, storage: str) -> None:
    async with running(folder, storage) as (engine, google):
        google.pushes = []
        await register(engine, google, "good", 30)
        await register(engine, google, "fid", 30)
        dead = await register(engine, google, "dead", 5)
        await register(engine, google, "throttled", 5)
        status = await (await engine.send(HI, "all")).wait(30)
        assert {state: n for state, n in status.counts.items() if n} == {"accepted": 65, "gone": 5}
        assert len(google.pushes) == 65
        assert {(await engine.endpoints.get(id)).state for id in dead} == {"gone"}


async def test_a_wrong_apple_credential_holds_apple_devices_and_android_goes_on(folder: Path, storage: str) -> None:
    async with running(folder, storage) as (engine, google):
        apple = await register(engine, google, "ios", 10, "apple")
        await register(engine, google, "good", 50)
        receipt = await engine.send(HI, "all")
        async for event in engine.live():
            if event.kind == "gate.closed":
                break
        while (await receipt.status()).counts["accepted"] < 50:
            await asyncio.sleep(0.001)  # storage in memory answers without letting the engine run
        again = await engine.send(HI, "user:u1")
        assert (await again.wait(60)).counts["accepted"] == 1  # Android is not held
        while {(await engine.endpoints.get(id)).address.group for id in apple} != {RELAYED}:
            await asyncio.sleep(0.005)  # the first that was refused waits by itself, and moves when it is asked again
        assert (await receipt.status()).counts["pending"] == 10
        for n in range(10):
            google.devices[google.address(n, "ios")] = "good"  # the credential is put right
        status = await receipt.wait(30)
        assert {state: n for state, n in status.counts.items() if n} == {"accepted": 60}
        endpoints = [await engine.endpoints.get(id) for id in apple]
        assert {endpoint.address.group for endpoint in endpoints} == {RELAYED}
        assert {endpoint.state for endpoint in endpoints} == {"active"}


@pytest.mark.parametrize("platform", ["", "ios"])
async def test_one_developers_iphone_stops_nobody(folder: Path, storage: str, platform: str) -> None:
    """Its token alone is refused for Apple's sake: iOS, web and Android devices go on, whether its platform is known or
    not."""
    async with running(folder, storage) as (engine, google):
        phone = {"token": google.address(0, "ios"), **({"platform": platform} if platform else {})}
        await engine.endpoints.register(user="eve", binding="fcm", address=phone)
        for n, other in enumerate(("ios", "ios", "web", "android", "")):
            named = {"platform": other} if other else {}
            address = {"token": google.address(n + 1, "good"), **named}
            await engine.endpoints.register(user="alice", binding="fcm", address=address)
        first = await engine.send(HI, "user:eve")
        while not (await first.status()).pending_by_reason.get("breaker"):
            await asyncio.sleep(0.005)
        for _ in range(2):
            assert (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"] == 5
        assert (await first.status()).counts["pending"] == 1


async def test_a_wrong_project_deletes_nothing(folder: Path, storage: str) -> None:
    """Every token is answered as another project's: the purge guard takes that for our mistake."""
    async with running(folder, storage) as (engine, google):
        ids = await register(engine, google, "good", 60)
        google.script = lambda request: google.error("SENDER_ID_MISMATCH", request)
        receipt = await engine.send(HI, "all")
        async for event in engine.live():
            if event.kind == "gate.closed":
                break
        states = [(await engine.endpoints.get(id)).state for id in ids]
        assert states.count("gone") < 25
        google.script = None
        status = await receipt.wait(30)
        assert status.counts["accepted"] >= 35


async def test_a_project_over_its_quota_waits_and_spends_nothing(folder: Path, storage: str) -> None:
    async with running(folder, storage) as (engine, google):
        await register(engine, google, "good", 40)
        google.script = lambda request: google.error("PROJECT_QUOTA", request)
        receipt = await engine.send(HI, "all")
        async for event in engine.live():
            if event.kind == "gate.closed":
                break
        google.script = None
        status = await receipt.wait(30)
        assert status.counts["accepted"] == 40


async def test_no_token_for_a_while_loses_nothing(folder: Path, storage: str) -> None:
    async with running(folder, storage) as (engine, google):
        google.tokens.script = lambda request: google.tokens.error("unavailable", request)
        await register(engine, google, "good", 40)
        receipt = await engine.send(HI, "all")
        async for event in engine.live():
            if event.kind == "gate.closed":
                break
        assert (await receipt.status()).counts["pending"] == 40
        google.tokens.script = None
        status = await receipt.wait(30)
        assert status.counts["accepted"] == 40
        assert status.attempts >= 40


async def test_a_campaign_above_the_rate_arrives_whole(folder: Path, storage: str) -> None:
    async with running(folder, storage, rate_per_minute=30_000) as (engine, google):
        await register(engine, google, "good", 700)
        status = await (await engine.send(HI, "all")).wait(30)
        assert status.counts["accepted"] == 700


async def test_doctor_finds_it_well(folder: Path, storage: str) -> None:
    async with running(folder, storage) as (engine, _):
        found = await engine.check()
        assert all(diagnosis.ok for diagnosis in found.values())
