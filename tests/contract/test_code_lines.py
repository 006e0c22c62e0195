"""How much code there is, against the limits; what does not hold yet is printed by `python
tests/contract/code_lines.py`."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from .code_lines import (
    LONGEST,
    MEDIAN,
    ROOT,
    START,
    START_LINES,
    by_folder,
    circles,
    code_lines,
    folder_of,
    of_revision,
    of_tree,
    over,
)

HELD = (
    "fanout", "fanout/_pyinstaller", "fanout/cli", "fanout/client", "fanout/config", "fanout/enqueue", "fanout/metrics", "fanout/plugin",
    "fanout/storage", "fanout/testing",
    "transports/fanout_apns", "transports/fanout_fcm", "transports/fanout_webpush", "transports/fanout_wns",
)  # fmt: skip
"""Folders that are held to their limit, and to what `ADDED` names. The script names all others that are over it."""


def test_a_folder_has_no_more_code_than_it_may() -> None:
    held = by_folder({path: source for path, source in of_tree().items() if folder_of(path) in HELD})
    assert set(held) == set(HELD)
    assert not over(held, added=True), "lines that these have beyond what they may: say less, or say it once"


def test_files_are_short() -> None:
    lengths = {path: len(source.splitlines()) for path, source in of_tree().items()}
    for file in (ROOT / "tests").rglob("*.py"):
        lengths[file.relative_to(ROOT).as_posix()] = len(file.read_text(encoding="utf-8").splitlines())
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST}
    assert statistics.median(lengths.values()) < MEDIAN


def test_no_module_of_storage_imports_another_in_a_circle() -> None:
    assert circles(of_tree(), "fanout.storage") == []


@pytest.mark.long("a small repository is counted")
def test_the_counts_of_the_start_are_those_of_the_revision() -> None:
    sources = of_revision(START)
    if sources is None:
        pytest.skip(f"the history here does not reach {START}")
    assert by_folder(sources) == START_LINES


def test_a_line_of_code_is_one_with_a_token_of_the_program() -> None:
    source = '''"""Docstring
of two lines."""

import os  # counts

LIMIT = 3
"""What stands behind a name."""
TEXT = """one
two # no comment

four"""


def f(
    a: int,
) -> int:
    """Docstring."""
    # a comment
    return (
        a

        # between
        + 1
    )
'''
    assert code_lines(source) == 1 + 1 + 4 + 3 + 4


def test_folders_are_those_of_the_second_level() -> None:
    found = [
        folder_of(path)
        for path in ("fanout/sync.py", "fanout/sync/a.py", "fanout/storage/sql/a.py", "transports/fanout_wns/a.py")
    ]
    assert found == ["fanout", "fanout", "fanout/storage", "transports/fanout_wns"]


def test_a_circle_is_found_though_only_type_checkers_go_round() -> None:
    files = {
        "fanout/storage/__init__.py": "",
        "fanout/storage/a.py": "from fanout.storage import b\n",
        "fanout/storage/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import C\n",
        "fanout/storage/c.py": "def f():\n    import fanout.storage.a\n",
        "fanout/storage/d.py": "from fanout.storage.a import x\n",
        "fanout/engine/e.py": "import fanout.storage.a\n",
    }
    assert circles(files, "fanout.storage") == [["fanout.storage.a", "fanout.storage.b", "fanout.storage.c"]]
    assert circles(files | {"fanout/storage/c.py": ""}, "fanout.storage") == []


def test_a_revision_and_a_tree_are_counted_alike(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name, text in {
        "fanout/a.py": "a = 1\n",
        "fanout/core/b.py": "# no\nb = 2\nc = 3\n",
        "transports/fanout_x/c.py": "\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert of_revision("HEAD", tmp_path) is None
    me = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false")
    for words in (["init", "-q"], ["add", "-A"], [*me, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert of_revision("HEAD", tmp_path) == of_tree(tmp_path)
    assert by_folder(of_tree(tmp_path)) == {"fanout": 1, "fanout/core": 2, "transports/fanout_x": 0}
    (tmp_path / "fanout" / "a.py").write_text("a = 1\nb = 1\n")
    assert by_folder(of_tree(tmp_path))["fanout"] == 2
    assert of_revision("no-such", tmp_path) is None


@pytest.mark.long("a small repository is counted")
def test_the_script_prints_the_tree_beside_any_revision() -> None:
    script = ROOT / "tests" / "contract" / "code_lines.py"
    ended = subprocess.run([sys.executable, str(script), "no-such"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (2, "no-such is no revision of this repository\n")
    if of_revision("HEAD") is None:
        pytest.skip("this is no checkout of git")
    ended = subprocess.run([sys.executable, str(script), "HEAD"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"{'fanout/core':24}" in ended.stdout
    assert "here: " in ended.stdout
