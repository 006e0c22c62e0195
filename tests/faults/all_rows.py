"""The rows of the fault run in their order: the first 55 are about one machine, the others about more."""

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
