"""Rows as tests: `pytest tests/faults -k row_06`, with `--faults` in the long form."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import Nursery
from tests.faults.run import line, measure
from tests.faults.table import Row
from tests.faults.world import Form

__all__ = ["cases"]

_LONG = frozenset(
    (
        2,
        5,
        6,
        7,
        8,
        9,
        12,
        13,
        14,
        15,
        16,
        19,
        22,
        25,
        27,
        28,
        30,
        31,
        33,
        34,
        39,
        40,
        41,
        42,
        45,
        46,
        47,
        48,
        52,
        54,
        59,
        60,
        63,
    )
)
"""Rows whose short form takes long too and whose neighbours show much the same, or that are about time, which a short
form does not judge: `make faults-short` and `make faults` run them, `make test` does not."""


def cases(rows: list[Row]) -> Callable[..., Coroutine[Any, Any, None]]:
    """A test function for these rows. What other files prove runs there; what nothing can run is skipped with the
    reason."""

    @pytest.mark.anyio
    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("row", [pytest.param(row, id=f"row_{row.number:02}") for row in rows])
    async def test_row(row: Row, tmp_path: Path, nursery: Nursery, request: pytest.FixtureRequest) -> None:
        if row.run is None:
            pytest.skip(row.why or f"see {', '.join(row.see)}")
        option = request.config.getoption
        if row.number in _LONG and not option("--faults") and not option("--short-rows"):
            pytest.skip("takes too long for `make test`: run `make faults-short`, or `make faults`")
        if not hasattr(os, "pidfd_open"):
            pytest.skip("needs Linux: processes of the trial are awaited through pidfd_open")
        # A seed that is the same for each run of the tests; `python -m tests.faults` draws one, and prints it.
        said = await measure(row, Form(request.config.getoption("--faults"), tmp_path / "trial", nursery, row.number))
        assert said.finding is not None
        if said.word == "not run":
            pytest.skip(said.finding.measured)
        assert not said.failed, "\n".join([line(row, said, 0.0), *said.finding.details])

    return test_row
