"""Makes `feedrig` importable under `--import-mode=importlib`, and runs what uses `backend` on each storage."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a storage is."""
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/feed.db"
