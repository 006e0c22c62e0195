"""A transport of a stranger's distribution, installed for one test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def pigeons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the transport `pigeon`, which answers at once; the folder of the site."""
    site = tmp_path / "site"
    info = site / "pigeon_post-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fanout.transports]\npigeon = pigeon_post:plugin\n")
    (site / "pigeon_post.py").write_text(
        "from fanout.testing.scripted import plugin as make\nplugin = make('pigeon')\n"
    )
    monkeypatch.syspath_prepend(str(site))
    return site
