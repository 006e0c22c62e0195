"""The search for tests that depend on chance finds one, and passes over one that does not."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.faults.world import until
from tests.flaky.__main__ import environment, main
from tests.flaky.order import drawn
from tests.flaky.trials import LONGEST, SHORTEST, Trial, differing, plan

ROOT = Path(__file__).parents[2]

_TESTS = """
import os, sys
from pathlib import Path

HERE = Path(__file__).parent

def test_steady():
    assert sys.getswitchinterval() < 0.06

def test_it_differs():
    file = HERE / "ran"
    ran = file.exists()
    file.touch()
    assert not ran, "only the first time"

def test_it_always_fails():
    assert False, "as ever"
"""


@pytest.mark.parametrize("runs", [2, 3, 10])
def test_trials_go_from_the_shortest_to_the_longest_interval_and_half_are_busy(runs: int) -> None:
    trials = plan(runs, 7)
    assert trials == plan(runs, 7)
    intervals = sorted(trial.interval for trial in trials)
    assert intervals[0] == pytest.approx(SHORTEST)
    assert intervals[-1] == pytest.approx(LONGEST)
    assert sum(trial.busy for trial in trials) == runs // 2
    assert len({trial.seed for trial in trials}) == runs


def test_what_is_listed() -> None:
    first = {"a": ("passed", ""), "b": ("passed", ""), "c": ("skipped", ""), "d": ("failed", "no"), "e": ("passed", "")}
    second = {"a": ("passed", ""), "b": ("failed", "why"), "c": ("skipped", ""), "d": ("failed", "no")}
    listed = differing([first, second])
    assert [(each.test, each.outcomes, each.reason) for each in listed] == [
        ("b", ("passed", "failed"), "why"),
        ("d", ("failed", "failed"), "no"),
        ("e", ("passed", "missing"), ""),
    ]
    assert str(listed[0]) == "b: passed in 1, failed in 2\n    why"


def test_a_test_that_differs_is_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_chance.py").write_text(_TESTS)
    monkeypatch.setattr("tests.flaky.__main__._BUSY", 0)
    assert main(["--runs", "2", "--seed", "1", "--one-process", str(tmp_path)]) == 1
    said = capfd.readouterr().out
    assert "test_it_differs: passed in 1, failed in 2\n    AssertionError: only the first time" in said
    assert "test_it_always_fails: failed in 1, 2" in said
    assert "2 of 3 tests differ" in said


def test_a_selection_without_a_test_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "2", "--one-process", str(tmp_path)]) == 2
    assert "came to no test" in capfd.readouterr().err


_INTERVAL = (
    "import sys; from fanout.bootstrap import dedicate_process; dedicate_process(); print(sys.getswitchinterval())"
)


def test_the_interval_holds_in_every_process(tmp_path: Path) -> None:
    """In children, in theirs, and in programs that set one of their own."""
    told = environment(Trial(1, 0, 0.033, busy=False), tmp_path / "outcomes")
    child = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {_INTERVAL!r}], capture_output=True, text=True).stdout)"
    for program in (_INTERVAL, child):
        ran = subprocess.run([sys.executable, "-c", program], env=told, capture_output=True, text=True, check=True)
        assert float(ran.stdout) == pytest.approx(0.033)


@pytest.mark.anyio
async def test_the_interval_holds_in_children_of_the_nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(Trial(1, 0, 0.033, busy=False), tmp_path / "outcomes").items():
        monkeypatch.setenv(name, value)
    nursery = Nursery()
    try:
        child = nursery.spawn("tests.flaky.test_flaky:say", ["say"], log=tmp_path / "said")
        await until(lambda: child.said.endswith("\n"), what="the child's interval")
        assert float(child.said) == pytest.approx(0.033)
        await child.wait()
    finally:
        nursery.close()


def say() -> int:
    """A child that says its switch interval."""
    from fanout.bootstrap import dedicate_process

    dedicate_process()
    print(sys.getswitchinterval(), flush=True)
    return 0


def test_the_order_is_drawn_and_can_be_drawn_again() -> None:
    tests = [f"tests/test_{name}.py::test_{number}" for name in "abc" for number in range(5)]
    one, other = drawn(tests, 1), drawn(tests, 2)
    assert one == drawn(reversed(tests), 1)
    assert one != other
    assert sorted(one) == sorted(other) == sorted(tests)
    files = [test.partition("::")[0] for test in one]
    assert sum(left != right for left, right in pairwise(files)) == 2, "a file's tests stay together"


def test_no_test_takes_away_where_children_look_for_modules() -> None:
    """`everywhere` is found through PYTHONPATH: what a test adds to it stands beside that."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        set_, kept = text.count('"PYTHONPATH": '), text.count('environ.get("PYTHONPATH"')
        assert set_ <= kept or file == Path(__file__), file
