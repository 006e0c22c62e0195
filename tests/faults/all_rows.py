"""The 56 rows in their order."""

from __future__ import annotations

from tests.faults.rows import (
    connections,
    disk,
    edge,
    elsewhere,
    kills,
    load,
    outage,
    postgres,
    processes,
    time,
    versions,
)
from tests.faults.table import Row

__all__ = ["ROWS"]

ROWS: list[Row] = sorted(
    [
        *connections.ROWS,
        *disk.ROWS,
        *edge.ROWS,
        *elsewhere.ROWS,
        *kills.ROWS,
        *load.ROWS,
        *outage.ROWS,
        *postgres.ROWS,
        *processes.ROWS,
        *time.ROWS,
        *versions.ROWS,
    ],
    key=lambda row: row.number,
)

assert [row.number for row in ROWS] == list(range(1, 57))
