"""Seeds 0 to 99: the whole of it under faults, and every promise kept. In files of a hundred, so that they run side by side."""

from __future__ import annotations

import pytest

from fanout.testing.simulation import simulate

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("first", range(0, 100, 5))
def test_every_promise_is_kept(first: int) -> None:
    for seed in range(first, first + 5):
        report = simulate(seed)
        assert report.ok, f"replay: {report.command}\n" + "\n".join(map(str, report.violations))
