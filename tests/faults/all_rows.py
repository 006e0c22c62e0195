"""The 55 rows in their order."""

from __future__ import annotations

from tests.faults.rows import connections, disk, kills, load, outage, processes, time
from tests.faults.table import Row

__all__ = ["ROWS"]

ROWS: list[Row] = sorted([*connections.ROWS, *disk.ROWS, *kills.ROWS, *load.ROWS, *outage.ROWS, *processes.ROWS, *time.ROWS], key=lambda row: row.number)
