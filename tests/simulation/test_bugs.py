"""Each planted bug is caught within 200 seeds: the same in which, without it, nothing fails (`test_seeds.py`, and here
what begins)."""

from __future__ import annotations

import pytest

from fanout_kit.simulation import BUGS, simulate

from .test_seeds import FIRST

pytestmark = pytest.mark.timeout(600)

SEEDS = 200
CAUGHT_BY = {
    "ack-before-commit": 8,
    "all-probe": 32,
    "bury-the-living": 1,
    "doubt-is-certainty": 5,
    "expand-twice": 2,
    "forget-accepted": 12,
    "forget-gate": 2,
    "goaway-excludes-all": 7,
    "ignore-cancel": 6,
    "ignore-collapse": 14,
    "ignore-epoch": 74,
    "ignore-generation": 14,
    "ignore-heartbeat": 5,
    "ignore-key": 0,
    "ignore-pause": 0,
    "ignore-ttl": 2,
    "lose-future": 1,
    "lose-retry": 5,
    "retry-early": 4,
    "revive-lease": 69,
    "send-to-former-owner": 8,
    "skip-at-page-edge": 2,
    "unmarked-once": 19,
    "wrong-byte": 8,
}
"""Where the search begins: a seed that has caught the bug before. It goes on with all others, and with --soak begins at
0."""


def test_each_bug_has_a_place_to_begin() -> None:
    assert CAUGHT_BY.keys() == BUGS.keys()
    assert all(0 <= seed < SEEDS for seed in CAUGHT_BY.values())


def test_without_the_bugs_nothing_fails_where_the_searches_begin() -> None:
    """Seeds before `FIRST` are run by `test_seeds.py`."""
    for seed in sorted({seed for seed in CAUGHT_BY.values() if seed >= FIRST}):
        report = simulate(seed)
        assert report.ok, f"replay: {report.command}\n" + "\n".join(map(str, report.violations))


@pytest.mark.parametrize("name", sorted(BUGS))
def test_the_bug_is_caught(name: str, request: pytest.FixtureRequest) -> None:
    first = 0 if request.config.getoption("--soak") else CAUGHT_BY[name]
    with BUGS[name].planted():
        seeds = (seed % SEEDS for seed in range(first, first + SEEDS))
        assert any(not simulate(seed).ok for seed in seeds), f"{SEEDS} seeds do not see this: {BUGS[name].says}"
