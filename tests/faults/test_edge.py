"""The rows of `rows/edge.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.edge import ROWS

test_row = cases(ROWS)
