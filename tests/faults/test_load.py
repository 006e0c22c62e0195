"""The rows of `rows/load.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.load import ROWS

test_row = cases(ROWS)
