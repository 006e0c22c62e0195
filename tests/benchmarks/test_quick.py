"""Every benchmark still runs: once each, with arguments too small to quote. `make bench` is the long form."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.external,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="benchmarks pin processes to CPUs, as Linux can"),
]
PROGRAMS = {"broadcast": ["nginx"], "engine": ["taskset"], "service": ["taskset"]}
"""What a benchmark cannot do without; the others skip single rows and say so."""


@pytest.mark.parametrize(
    "name", ["http_client", "broadcast", "engine", "storage", "fcm", "wns", "webpush", "kills", "lanes"]
)
def test_it_runs(name: str) -> None:
    missing = [program for program in PROGRAMS.get(name, []) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"install {' and '.join(missing)} (Debian: nginx-light, util-linux)")

    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    _, heading, *rows = [line for line in ended.stdout.splitlines() if line]
    assert heading == name
    assert rows


def test_an_unknown_one_is_refused() -> None:
    ended = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert "There is no benchmark 'speed'" in ended.stderr
