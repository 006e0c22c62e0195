"""Every benchmark still runs: once each, with arguments too small to quote. `make bench` is the long form."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.__main__ import QUICK, SHORT

pytestmark = [
    pytest.mark.external,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="benchmarks pin processes to CPUs, as Linux can"),
]
PROGRAMS = {
    "broadcast": ["nginx"],
    "engine": ["taskset"],
    "lanes": ["nginx"],
    "steps": ["nginx"],
    "service": ["taskset"],
}
"""What a benchmark cannot do without; the others skip single rows and say so."""


@pytest.mark.parametrize("name", QUICK)
def test_it_is_there_and_takes_the_arguments_of_each_form(name: str) -> None:
    run = inspect.signature(importlib.import_module(f"benchmarks.{name}").run)
    for form in (QUICK, SHORT):
        run.bind(**form[name])


_LONG = pytest.mark.long("each is imported, and its arguments are looked at")


@pytest.mark.parametrize(
    "name", ["micro", *(pytest.param(name, marks=_LONG) for name in QUICK if name not in ("micro", "service"))]
)
def test_it_runs(name: str, tmp_path: Path) -> None:
    missing = [program for program in PROGRAMS.get(name, []) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"install {' and '.join(missing)} (Debian: nginx-light, util-linux)")

    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert results.read(tmp_path)[name]["rows"]
    _, heading, *rows = [line for line in ended.stdout.splitlines() if line]
    assert heading == name
    assert rows


def test_an_unknown_one_is_refused() -> None:
    ended = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert "There is no benchmark 'speed'" in ended.stderr


def test_each_has_a_form_for_make_bench() -> None:
    assert set(SHORT) == set(QUICK)
