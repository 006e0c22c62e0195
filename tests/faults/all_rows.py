"""The rows in their order: 55 of the reliability plan, and those past one machine."""

from __future__ import annotations

from tests.faults.rows import (
    cluster,
    connections,
    disk,
    edge,
    elsewhere,
    fairness,
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
        *cluster.ROWS,
        *connections.ROWS,
        *disk.ROWS,
        *edge.ROWS,
        *elsewhere.ROWS,
        *fairness.ROWS,
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

assert [row.number for row in ROWS] == list(range(1, 66))
