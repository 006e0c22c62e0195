"""The rows of `rows/elsewhere.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.elsewhere import ROWS

test_row = cases(ROWS)
