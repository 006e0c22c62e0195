"""Seeds 100 to 199: see `test_seeds_low.py`."""

from __future__ import annotations

import pytest

from fanout.testing.simulation import simulate

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("first", range(100, 200, 5))
def test_every_promise_is_kept(first: int) -> None:
    for seed in range(first, first + 5):
        report = simulate(seed)
        assert report.ok, f"replay: {report.command}\n" + "\n".join(map(str, report.violations))
