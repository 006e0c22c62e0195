"""The table is whole: 55 rows, each measured, proved elsewhere or not run for a reason; and no failpoint without a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.testing.faulty import NAMES
from tests.faults.all_rows import ROWS
from tests.faults.rows.kills import SCENES
from tests.faults.rows.versions import POINTS
from tests.faults.run import line
from tests.faults.table import Finding, Row

ROOT = Path(__file__).parents[2]


def test_every_row_is_there_once_and_says_what_becomes_of_it() -> None:
    assert [row.number for row in ROWS] == list(range(1, 56))
    for row in ROWS:
        assert sum((row.run is not None, bool(row.see), bool(row.why))) == 1, row.number
        assert row.figure
        assert row.limit


@pytest.mark.parametrize("row", [row for row in ROWS if row.see], ids=lambda row: str(row.number))
def test_what_a_row_points_to_exists(row: Row) -> None:
    for place in row.see:
        assert (ROOT / place).exists(), place


def test_every_failpoint_has_its_row() -> None:
    assert {name.rpartition(" ")[2] for name in SCENES} | set(POINTS) == set(NAMES)


def test_a_row_is_one_line() -> None:
    for row in ROWS:
        assert "\n" not in line(row, "FAIL", Finding("found", False, "scale"), 1.0)
