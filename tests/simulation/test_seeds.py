"""The whole of it under faults, and every promise kept: seeds 0 to 199 with --soak, the first 20 of them otherwise."""

from __future__ import annotations

import pytest

from fanout_kit.simulation import simulate

pytestmark = pytest.mark.timeout(600)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first" in metafunc.fixturenames:
        metafunc.parametrize("first", range(0, 200 if metafunc.config.getoption("--soak") else 20, 5))


def test_every_promise_is_kept(first: int) -> None:
    for seed in range(first, first + 5):
        report = simulate(seed)
        assert report.ok, f"replay: {report.command}\n" + "\n".join(map(str, report.violations))
