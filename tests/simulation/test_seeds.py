"""The whole of it under faults, every promise kept, and not without anything happening: seeds 0 to 199 with --soak, the
first 20 of them otherwise."""

from __future__ import annotations

from functools import cache

import pytest

from fanout_kit.simulation import simulate

pytestmark = pytest.mark.timeout(600)

FIRST = 20
"""How many seeds are run without --soak."""

run = cache(simulate)
"""A seed is one run, whichever test asks for it."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first" in metafunc.fixturenames:
        metafunc.parametrize("first", range(0, 200 if metafunc.config.getoption("--soak") else FIRST, 5))


def test_every_promise_is_kept(first: int) -> None:
    for seed in range(first, first + 5):
        report = run(seed)
        assert report.ok, f"replay: {report.command}\n" + "\n".join(map(str, report.violations))


def test_a_run_exercises_what_it_is_meant_to() -> None:
    """Over a few seeds: every end of a delivery, repeats, and more lives than workers. A simulation in which nothing
    happens proves nothing."""
    total: dict[str, int] = {}
    for seed in range(12):
        for what, count in run(seed).figures.items():
            total[what] = total.get(what, 0) + count
    for state in ("accepted", "gone", "rejected", "expired", "cancelled", "superseded", "dead"):
        assert total.get(state, 0) > 0, f"no delivery ended {state}"
    assert total["attempts"] > 500
    assert total["taken twice"] > 5
    assert total["lives"] > 26
