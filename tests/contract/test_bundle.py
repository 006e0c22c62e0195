"""A program that PyInstaller bundles finds its plugins, ours and a stranger's."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from fanout import _pyinstaller

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, fanout
from fanout.registry import Registry

async def main():
    async with fanout.open(storage="sqlite:bundle.db", transports={"pigeon": {}}) as engine:
        await engine.endpoints.register(user="alice", binding="pigeon", address="phone")
        receipt = await engine.send(fanout.Notification(title="Hi"), "user:alice")
        print((await receipt.wait(30)).counts["accepted"], *sorted(Registry().names("transport")))

asyncio.run(main())
"""
PIGEON = "from fanout.testing.scripted import plugin as make\nplugin = make()\n"


def test_the_hook_is_found_by_its_entry_point() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert declared["pyinstaller40"]["hook-dirs"] == "fanout._pyinstaller:get_hook_dirs"
    assert [Path(folder, "hook-fanout.py").is_file() for folder in _pyinstaller.get_hook_dirs()] == [True]


@pytest.mark.external
@pytest.mark.timeout(600)
def test_a_bundle_finds_its_plugins(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if find_spec("PyInstaller") is None:
        pytest.skip("PyInstaller is not installed: pip install pyinstaller")
    if not request.config.getoption("soak"):
        pytest.skip("takes a minute: run `make soak`")
    info = tmp_path / "pigeon_post-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fanout.transports]\npigeon = pigeon_post:plugin\n")
    (info / "RECORD").write_text("pigeon_post.py,,\n")
    (tmp_path / "pigeon_post.py").write_text(PIGEON)
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", "--paths", str(tmp_path)]
    words += ["--additional-hooks-dir", *_pyinstaller.get_hook_dirs(), "program.py"]
    environ = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    subprocess.run(words, cwd=tmp_path, env=environ, check=True, timeout=500)
    (away := tmp_path / "away").mkdir()
    bundle = tmp_path / "dist" / "program" / "program"
    found = subprocess.run([bundle], cwd=away, env={}, capture_output=True, text=True, timeout=60, check=False)

    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["1", "apns", "fcm", "pigeon", "webpush", "wns"]
