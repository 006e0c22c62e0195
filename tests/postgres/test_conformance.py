"""The PostgreSQL storage keeps the contract."""

from __future__ import annotations

import pytest

from fanout.storage.postgres import plugin
from fanout.testing.storage import CHECKS, Maker, run_check

pytestmark = [pytest.mark.anyio, pytest.mark.external]


@pytest.mark.parametrize("name", CHECKS)
async def test_law(name: str, makers: tuple[Maker, Maker]) -> None:
    await run_check(name, *makers)


def test_descriptor_is_light() -> None:
    assert plugin.name == "postgresql"
    assert plugin.factory == "fanout.storage.postgres.store:make"
    assert plugin.extra == "postgres"
