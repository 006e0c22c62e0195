"""A service on a socket for the tests of this folder, which speak bytes; and makes `edgerig` importable under
`--import-mode=importlib`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def rig() -> AsyncIterator[object]:
    from edgerig import running

    async with running() as made:
        yield made
