"""One rig per test; and makes `authrig` importable under `--import-mode=importlib`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def rig() -> AsyncIterator[object]:
    from authrig import rig_of

    async with rig_of() as made:
        yield made
