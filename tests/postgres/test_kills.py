"""Whole processes on one PostgreSQL database: killed, stopped, cut off, and let down by the server. `--faults`: the
long form."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.faults.cases import cases
from tests.faults.rows.hosts import two_hosts
from tests.faults.rows.postgres import ROWS, four_workers_killed, four_workers_stopped
from tests.faults.table import Row

pytestmark = [pytest.mark.external]

_AMONG_FOUR = "0 lost, 0 falsely accepted, duplicates <= in flight + rate x checkpoint per worker"

test_row: Callable[..., Coroutine[Any, Any, None]] = cases(ROWS)
test_four_workers: Callable[..., Coroutine[Any, Any, None]] = cases(
    [
        Row(number=1, figure="kill -9 of any of four workers", limit=_AMONG_FOUR, run=four_workers_killed),
        Row(number=6, figure="SIGSTOP of one of four past its lease", limit=_AMONG_FOUR, run=four_workers_stopped),
        Row(number=7, figure="one of two hosts loses its network past its leases", limit=_AMONG_FOUR, run=two_hosts),
    ]
)
