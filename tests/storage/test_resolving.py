"""Endpoints that are read as one, because they are alike, are those that are read one by one."""

from __future__ import annotations

import random
from array import array

import pytest

from fanout.core.address import Address
from fanout.core.alike import AlikeRows
from fanout.core.endpoint import Registration
from fanout.core.model import Target
from fanout.core.records import RetryRow, Settlement
from fanout.plugin import StorageContext
from fanout.storage.sqlite import resolving
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, lease_all, post, submission

pytestmark = pytest.mark.anyio

ODD = ["", "\x1f", "a\x1fb", "1,2", "é\u2028", '"', "𝄞"]


def opened() -> MemoryStorage:
    return MemoryStorage("", StorageContext(clock=VirtualClock(T0)))


@pytest.mark.parametrize("seed", range(12))
async def test_any_choice_is_read_as_it_is_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one kind and group or of several, some removed, refreshed or held, with characters that divide a list."""
    rng = random.Random(seed)
    odd, mixed, trouble = (rng.random() < share for share in (0.3, 0.3, 0.5))
    async with opened() as storage:
        devices = [
            Registration(
                user=f"u{n % 7}",
                binding="apns",
                address=Address(
                    f"{n}{rng.choice(ODD) if odd else ''}",
                    kind=rng.choice(["k", "other"]) if mixed else "k",
                    group=rng.choice(["g", ""]) if mixed else "g",
                    identity=str(n),
                ),
            )
            for n in range(40)
        ]
        now = T0
        for each in devices:
            now += rng.random()
            await storage.register([each], now)
        if trouble:
            await storage.register(rng.sample(devices, 5), now)
            (last, *_) = await storage.register([devices[-1]], now)
            if rng.random() < 0.5:
                await storage.remove_endpoints("default", [last.id], now)
            else:
                await post(storage, submission(Target.endpoints([last.id]), now=now), now)
                (chunk,) = await lease_all(storage, now)
                row = RetryRow(0, now + 9, 2, "backoff", "busy", holds=True)
                await storage.settle([Settlement(chunk.id, chunk.epoch, retries=[row])], now)
        every = [row.id for row in await storage.resolve(array("q", range(1, 60)), now)]
        choices = [every, every[::3], every[::-1], [*every, 10**12], every[:1], rng.sample(every, 9), every[3:30]]
        for ids in (array("q", choice) for choice in choices):
            monkeypatch.setattr(resolving, "ALIKE_FROM", 10**9)
            apart = sorted(await storage.resolve(ids, now))
            monkeypatch.setattr(resolving, "ALIKE_FROM", 1)
            assert sorted(await storage.resolve(ids, now)) == apart


@pytest.mark.parametrize("step", [1, 3])
async def test_the_usual_endpoints_are_read_by_column(step: int) -> None:
    """Also where others were refreshed: each has a generation of its own."""
    async with opened() as storage:
        devices = [
            Registration(user=f"u{n}", binding="apns", address=Address(str(n), kind="k", group="g", identity=str(n)))
            for n in range(2500)
        ]
        entered = await storage.register(devices, T0)
        await storage.register(devices[:50], T0 + 1)
        rows = await storage.resolve(array("q", [each.id for each in entered[::step]]), T0)
        assert isinstance(rows, AlikeRows)
        assert [row.address for row in rows] == [str(n) for n in range(0, 2500, step)]
        assert (rows[0].generation, rows[-1].generation) == (2, 1)
