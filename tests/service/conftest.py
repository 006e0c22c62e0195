"""One running service for each test, on SQLite; and `servicerig` importable under `--import-mode=importlib`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def rig(tmp_path: Path, anyio_backend: Any) -> AsyncIterator[Any]:
    from servicerig import running

    async with running(tmp_path) as found:
        yield found
