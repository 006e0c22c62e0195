"""The rows of `rows/processes.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.processes import ROWS

test_row = cases(ROWS)
