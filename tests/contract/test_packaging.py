"""How the distribution is put together."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from fanout.plugin import StoragePlugin, TransportPlugin

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = sorted(
    folder for folder in (ROOT / "transports").iterdir() if folder.is_dir() and folder.name != "__pycache__"
)
SOURCES = [file for part in ("fanout", "transports", "tests/kit") for file in sorted((ROOT / part).rglob("*.py"))]
SKIPPED = {
    "tests",
    ".git",
    ".venv",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "__pycache__",
    "dist",
    "build",
}


def test_transports_is_a_source_root_and_no_package() -> None:
    assert not (ROOT / "transports" / "__init__.py").exists()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_transport_is_typed_and_has_an_entry_point_of_its_name(folder: Path) -> None:
    assert folder.name.startswith("fanout_")
    assert (folder / "py.typed").exists()
    name = folder.name.removeprefix("fanout_")
    assert PROJECT["entry-points"]["fanout.transports"][name] == f"{folder.name}:plugin"


def test_every_entry_point_names_a_descriptor_of_its_name() -> None:
    for group, kind in (("fanout.transports", TransportPlugin), ("fanout.storage", StoragePlugin)):
        declared = PROJECT["entry-points"][group]
        installed = {entry.name: entry for entry in entry_points(group=group)}
        for name in declared:
            assert installed[name].value == declared[name], "pyproject has changed: install the checkout again"
            found = installed[name].load()
            assert isinstance(found, kind)
            assert found.name == name


def test_every_extra_that_a_plugin_names_exists() -> None:
    for group in ("fanout.transports", "fanout.storage"):
        for name, value in PROJECT["entry-points"][group].items():
            module, _, attribute = value.partition(":")
            extra = getattr(import_module(module), attribute).extra
            assert not extra or extra in PROJECT["optional-dependencies"], f"{name} names the extra {extra!r}"


def test_each_folder_says_what_it_is_for() -> None:
    for file in SOURCES:
        if file.name == "__init__.py":
            text = file.read_text(encoding="utf-8")
            assert text.startswith('"""'), f"{file.relative_to(ROOT)} has no docstring"


def test_nobody_is_told_to_install_somebody_elses_package() -> None:
    wrong = re.compile(r"pip install\s+(?:-\S+\s+)*['\"]?fanout(?!-push)\b")
    for file in ROOT.rglob("*"):
        if file.suffix not in {".py", ".md", ".toml", ".txt", ".sh", ""} or not file.is_file():
            continue
        if SKIPPED & set(file.relative_to(ROOT).parts):
            continue
        found = wrong.search(file.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{file.relative_to(ROOT)}: {found and found.group()}"


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import sys; import fanout; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"aiohttp", "anyio", "apsw", "asyncio", "cryptography", "orjson", "pydantic", "rich", "typer"}
    ours = [name for name in run.stdout.split() if name.startswith("fanout")]
    assert ours == ["fanout"]


def test_a_process_that_only_submits_imports_no_heavy_client() -> None:
    code = "import sys; from fanout import Notification, Target, Endpoint, Accepted; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"aiohttp", "anyio", "apsw", "asyncio", "cryptography", "pydantic", "rich", "typer"}
