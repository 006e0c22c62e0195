"""The rows of `rows/kills.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.kills import ROWS

test_row = cases(ROWS)
