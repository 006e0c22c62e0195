"""The rows of `rows/disk.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.disk import ROWS

test_row = cases(ROWS)
