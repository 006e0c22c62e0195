"""What the pages for operators call shown is shown: each test, row and command that they name is there."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.faults.all_rows import ROWS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
RUNNING = ROOT / "docs" / "running-on-postgresql.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        assert name in tests, f"{file}::{name}"
    for number in re.findall(r"\brow (\d+)", text):
        assert int(number) in {row.number for row in ROWS}
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert find_spec(module) is not None, module
    for link in re.findall(r"\]\(([\w./-]+\.md)\)", text):
        assert (page.parent / link).exists(), link


def test_the_page_on_postgresql_has_every_topology_with_its_evidence() -> None:
    """Each topology says what may be lost, and names a test; what is counted there is what the list holds."""
    text = RUNNING.read_text(encoding="utf-8")
    topologies = text.partition("## Topologies")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(topologies) == 6
    for topology in topologies:
        assert "::test_" in topology, topology.splitlines()[0]
    for heading in (
        "Settings",
        "Sizing",
        "Backups",
        "Upgrades",
        "Vacuum",
        "When one database is not enough",
        "Sources",
    ):
        assert f"\n## {heading}\n" in text
    for number in set(re.findall(r"\[(\d+)\]", text)):
        assert f"\n{number}. " in text, f"source {number}"


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/decisions.md", "docs/outcomes.md"])
def test_each_file_that_a_page_names_is_there(page: str) -> None:
    """A path in backticks: from the top, from `fanout/` or a part of it; or the name of a file, after its folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names = {file.name for folder in ("fanout", "transports") for file in (ROOT / folder).rglob("*.*")} | {
        "fanout.toml"
    }
    parts = [ROOT, ROOT / "fanout", *(ROOT / "fanout").glob("*/")]
    found = re.findall(r"`([\w/*.-]+(?:\.(?:py|js|md|json|toml|yml)|/))`", text)
    absent = [
        each
        for each in found
        if each not in names and not any(next(part.glob(each.rstrip("/")), None) for part in parts)
    ]
    assert not absent


def test_each_target_of_make_that_a_page_names_is_one() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in [*ROOT.glob("*.md"), *PAGES, ROOT / "benchmarks" / "README.md", ROOT / "deploy" / "README.md"]:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:`|^)make\s+([\w-]+)", text, re.MULTILINE))
        assert named <= targets, f"{page.name}: {named - targets}"
