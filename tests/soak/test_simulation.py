"""The simulation over many more seeds than the tests take: 10,000 with `make soak`, a core each for what cores there
are."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import pytest

pytestmark = pytest.mark.timeout(4 * 3600)

_TESTED = 200
"""Seeds that tests/simulation has run already, all of them with --soak."""


@pytest.mark.long("tests/simulation runs the first seeds")
def test_no_seed_breaks_a_promise() -> None:
    many = 10_000
    cores = os.cpu_count() or 1
    edges = [_TESTED + many * core // cores for core in range(cores + 1)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "fanout_kit.simulation", "--keep-going", "--seeds", f"{first}..{last - 1}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for first, last in pairwise(edges)
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * cores, "\n".join(said)
