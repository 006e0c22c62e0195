"""The memory storage keeps the contract."""

from __future__ import annotations

import pytest

from fanout.plugin import StorageContext
from fanout.storage.memory import plugin
from fanout.storage.memory.store import MemoryStorage
from fanout.testing.storage import CHECKS, run_check

pytestmark = pytest.mark.anyio


def make(context: StorageContext) -> MemoryStorage:
    return MemoryStorage("", context)


@pytest.mark.parametrize("name", CHECKS)
async def test_law(name: str) -> None:
    await run_check(name, make)


def test_descriptor_is_light() -> None:
    assert plugin.name == "memory"
    assert plugin.factory == "fanout.storage.memory.store:MemoryStorage"
