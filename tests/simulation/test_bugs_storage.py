"""Each bug planted in the storage is caught within 200 seeds: the same in which, without it, nothing fails."""

from __future__ import annotations

import pytest

from fanout.testing.simulation import BUGS, simulate

pytestmark = pytest.mark.timeout(600)

MINE = sorted(name for name, bug in BUGS.items() if bug.target.startswith("fanout.storage"))


@pytest.mark.parametrize("name", MINE)
def test_the_bug_is_caught(name: str) -> None:
    with BUGS[name].planted():
        assert any(not simulate(seed).ok for seed in range(200)), f"200 seeds do not see this: {BUGS[name].says}"
