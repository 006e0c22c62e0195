"""The 55 rows in their order."""

from __future__ import annotations

from tests.faults.rows import disk, kills, processes, time
from tests.faults.table import Row

__all__ = ["ROWS"]

ROWS: list[Row] = sorted([*disk.ROWS, *kills.ROWS, *processes.ROWS, *time.ROWS], key=lambda row: row.number)
