"""The rows of `rows/outage.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.outage import ROWS

test_row = cases(ROWS)
