"""The rows of `rows/connections.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.connections import ROWS

test_row = cases(ROWS)
