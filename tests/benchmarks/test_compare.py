"""Two revisions in turns: whose rows are compared, by what, and each with its own source."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare, results
from benchmarks.__main__ import QUICK


def test_the_ratio_is_of_now_to_before_round_by_round() -> None:
    before = [{"cost": (10.0, "us"), "gone": (1.0, "us")}, {"cost": (20.0, "us"), "gone": (1.0, "us")}]
    now = [{"cost": (9.0, "us"), "new": (1.0, "us")}, {"cost": (10.0, "us"), "new": (1.0, "us")}]

    (row,) = compare.compared(before, now, "abc1234")

    assert (row.name, row.value, row.unit, row.note) == ("cost", 9.5, "us", "abc1234: 15.0")
    assert (row.ratio, row.spread) == (pytest.approx(0.7), (0.5, 0.9))
    assert "0.70 x abc1234 [0.50 to 0.90]" in str(row)


def test_each_has_a_turn_at_being_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def rows_of(side: compare.Side, name: str, form: str, chosen: object) -> dict[str, tuple[float, str]]:
        asked.append(side.name)
        return {"cost": (1.0, "us")}

    monkeypatch.setattr(compare, "rows_of", rows_of)
    sides = [compare.Side(name, Path(name)) for name in ("now", "before", "other")]
    taken = compare._rounds(sides, ["some"], "QUICK", {}, 2)

    assert asked == ["now", "before", "other", "other", "before", "now"]
    assert [len(side) for side in taken["some"]] == [2, 2, 2]


def test_a_tree_runs_its_own_source(tmp_path: Path) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("QUICK = {'some': {'count': 3}}")
    (tmp_path / "fanout.py").write_text("SPEED = 7.0")
    (package / "some.py").write_text(
        "from typing import NamedTuple\nimport fanout\n"
        "class Row(NamedTuple):\n    name: str\n    value: float\n    unit: str\n    client_cpu: float = 0.0\n"
        "def run(*, count, rounds=9, with_rivals=True):\n"
        "    return [Row(f'{count} {rounds} {with_rivals}', fanout.SPEED, '/s', 12.5), Row('skipped', 0.0, ''),\n"
        "            Row('cost', 3.0, 'us of CPU', 3.0)]\n"
    )
    side = compare.Side("before", tmp_path)

    # A rate is followed by its CPU, for a busy machine disturbs that less.
    assert compare.rows_of(side, "some", "QUICK", {}) == {
        "3 1 False": (7.0, "/s"),
        "3 1 False: the client's CPU": (12.5, "us of CPU"),
        "cost": (3.0, "us of CPU"),
    }
    assert "5 1 False" in compare.rows_of(side, "some", "QUICK", {"count": 5})


def test_each_interpreter_is_a_side_named_by_its_version_and_build(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)

    own, first, second = compare._sides("abc1234", compare.ROOT, [str(other), sys.executable])

    assert (own.name, own.python) == ("this checkout", sys.executable)
    named = f"abc1234 on {results.interpreter(results.machine())}"
    assert [first, second] == [
        compare.Side(named, compare.ROOT, str(other)),
        compare.Side(named, compare.ROOT, sys.executable),
    ]


@pytest.mark.skipif(shutil.which("git") is None, reason="install git")
def test_what_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["no-such-revision"], list(QUICK)) == 2
    assert "There is no revision 'no-such-revision'" in capsys.readouterr().err
    assert compare.main(["HEAD", "speed"], list(QUICK)) == 2
    assert "There is no benchmark 'speed'" in capsys.readouterr().err
    assert compare.main(["HEAD", "--python", "/no/such/python"], list(QUICK)) == 2
    assert "--python /no/such/python: no interpreter that can run the benchmarks" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main(["HEAD", "broadcast", "--set", "sends=3"], list(QUICK))
    assert "--set sends: broadcast takes rounds, devices, with_rivals." in capsys.readouterr().err


def test_the_command_line_knows_it() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "compare", "HEAD", "--rounds", "0"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert "--rounds 0: give 1 or more." in ended.stderr
