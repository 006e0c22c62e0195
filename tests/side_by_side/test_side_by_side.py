"""Files side by side: each outcome is heard of, whatever happens to a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")

_CONFTEST = """
import os, pytest

@pytest.fixture(scope="session")
def own(tmp_path_factory):
    yield tmp_path_factory.getbasetemp()
    print("cleared", flush=True)
    if os.environ.get("CLEARS_BADLY"):
        raise RuntimeError("a session that clears away badly")
"""
_FILES = {
    "test_a.py": """
import os, signal, warnings
def test_passes(own): print("not shown")
def test_ends_its_process(): os.kill(os.getpid(), signal.SIGKILL)
def test_after_it(tmp_path): (tmp_path / "file").touch()
""",
    "test_b.py": """
import pytest, warnings
def test_fails(): print("what was said"); assert 1 == 2
def test_warns(): warnings.warn("heard of")
@pytest.mark.skip(reason="because")
def test_skipped(): pass
""",
    "test_c.py": """
import os
def test_exits(own): os._exit(0)
""",
}


def run(folder: Path, *words: str, **environ: str) -> tuple[int, str]:
    (folder / "conftest.py").write_text(_CONFTEST)
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.side_by_side.plugin", "-p", "no:cacheprovider", "-rs"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(folder), f"--basetemp={folder / 'temp'}", *words, str(folder)],
        env=os.environ | environ | {"PYTHONPATH": path, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not ended.stderr, ended.stderr
    return ended.returncode, ended.stdout


def test_each_outcome_is_heard_of_also_of_a_test_that_ends_its_process(tmp_path: Path) -> None:
    code, said = run(tmp_path, "--processes", "2")

    assert code == 1
    assert "3 failed, 3 passed, 1 skipped, 1 warning" in said
    assert "Its process ended with -9." in said
    assert "Its process ended with 0." in said
    assert "assert 1 == 2" in said
    assert "what was said" in said
    assert "heard of" in said
    assert "because" in said
    assert "not shown" not in said


def test_a_session_that_clears_away_badly_is_an_error(tmp_path: Path) -> None:
    code, said = run(tmp_path, "--processes", "2", "-k", "passes", CLEARS_BADLY="yes")

    assert code == 1
    assert "1 passed, 6 deselected, 1 error" in said
    assert "a session that clears away badly" in said


def test_the_first_failure_ends_the_others(tmp_path: Path) -> None:
    code, said = run(tmp_path, "--processes", "1", "-x")

    assert code == 1
    assert "stopping after 1 failures" in said
    assert "1 failed, 1 passed" in said


def test_what_cannot_be_collected_is_said(tmp_path: Path) -> None:
    (tmp_path / "test_d.py").write_text("import of_nothing")

    code, said = run(tmp_path, "--processes", "2")

    assert code == 2
    assert "of_nothing" in said


def test_a_test_that_hangs_is_said_to_hang(tmp_path: Path) -> None:
    """pytest-timeout writes to the terminal first, which a forked process has not: it failed there, without a word."""
    (tmp_path / "test_d.py").write_text("import threading\ndef test_hangs(): threading.Event().wait()\n")

    code, said = run(tmp_path, "--processes", "2", "-p", "pytest_timeout", "--timeout", "0.2", "-k", "hangs")

    assert code == 1
    assert "Timeout" in said
    assert "from pytest-timeout" in said
