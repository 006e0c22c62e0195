"""Other environments are found, or said to be missing; and each library that users run has a lowest version."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from tests.environments import __main__ as environments
from tests.environments.__main__ import floors, interpreters, main

ROOT = Path(__file__).parents[2]


def test_every_library_of_the_runtime_has_a_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = floors(project)
    assert {"anyio", "aiohttp", "cryptography", "apsw", "fastapi", "asyncpg"} <= set(found)
    with pytest.raises(ValueError, match="'hpack' has no lowest version"):
        floors(project | {"dependencies": ["hpack"]})


def test_the_present_python_is_found_and_one_that_is_not_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments.shutil, "which", lambda name: sys.executable)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    present = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert dict(interpreters([present, "3.99"])) == {present: sys.executable, "3.99": None}


def test_what_is_not_run_is_named_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "_environment", lambda *words: None)
    monkeypatch.setattr(environments, "interpreters", lambda versions: [("3.12", sys.executable), ("3.13", None)])
    assert main(["pythons"]) == main(["floors"]) == 0
    said = capsys.readouterr().out
    assert "Python 3.12: not run, for there is no package index" in said
    assert "Python 3.13: not run, for it is not installed here" in said
    assert "floors: not run, for there is no package index" in said
    assert main(["others"]) == 2
