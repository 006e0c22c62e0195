"""The 55 rows in their order."""

from __future__ import annotations

from tests.faults.rows import kills
from tests.faults.table import Row

__all__ = ["ROWS"]

ROWS: list[Row] = sorted([*kills.ROWS], key=lambda row: row.number)
