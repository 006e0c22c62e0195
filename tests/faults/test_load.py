"""The rows of `rows/load.py` and `rows/fairness.py`, as tests."""

from __future__ import annotations

from tests.faults.cases import cases
from tests.faults.rows import fairness, load

test_row = cases([*load.ROWS, *fairness.ROWS])
