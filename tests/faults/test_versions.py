"""The rows of `rows/versions.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.versions import ROWS

test_row = cases(ROWS)
