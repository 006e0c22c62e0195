"""The rows of `rows/time.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.time import ROWS

test_row = cases(ROWS)
