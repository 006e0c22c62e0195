"""The rows of `rows/cluster.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows.cluster import ROWS

test_row = cases(ROWS)
