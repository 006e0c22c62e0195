"""Runs rows: one at a time, each in a folder of its own, and says what came of it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.nursery import Nursery
from tests.faults.table import Finding, NotRun, Row
from tests.faults.world import Form

__all__ = ["Run", "line"]

_ROOT = Path(__file__).parents[2]


class Run:
    """A run of some rows. A context manager; `logs` are the standard errors of every worker and driver so far."""

    def __init__(self, *, long: bool, seed: int) -> None:
        self.long = long
        self.seed = seed
        self.logs: list[Path] = []
        self._folder = Path(tempfile.mkdtemp(prefix="fanout-faults-"))
        self._nursery = Nursery()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self._nursery.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def form(self, number: int) -> Form:
        """What a row is handed."""
        folder = self._folder / f"row{number:02}"
        return Form(self.long, folder, self._nursery, self.seed + number, self.logs)

    async def measure(self, row: Row) -> Finding:
        """Measure it here and now; what goes wrong on the way is a finding too."""
        assert row.run is not None
        try:
            return await row.run(self.form(row.number))
        except NotRun:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return Finding(
                f"the trial itself failed: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})",
                False,
                details=tuple(traceback.format_exc().splitlines()),
            )

    def tests(self, row: Row) -> Finding:
        """Run the tests that prove it."""
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(["--faults"] if self.long else []),
            *row.see,
        ]
        ran = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=900)
        last = ([text for text in ran.stdout.splitlines() if text.strip()] or ["nothing"])[-1].strip("= ")
        details = () if ran.returncode == 0 else tuple(ran.stdout.splitlines()[-30:])
        return Finding(f"{', '.join(row.see)}: {last}", ran.returncode == 0, details=details)

    def row(self, row: Row) -> tuple[str, Finding | None, float]:
        """(`pass`, `FAIL` or `not run`, the finding, seconds)."""
        began = time.monotonic()
        if row.run is not None:
            try:
                finding = asyncio.run(self.measure(row))
            except NotRun as reason:
                return "not run", Finding(str(reason), True), 0.0
        elif row.see:
            finding = self.tests(row)
        else:
            return "not run", None, 0.0
        return "pass" if finding.passed else "FAIL", finding, time.monotonic() - began


def line(row: Row, word: str, finding: Finding | None, seconds: float) -> str:
    """A row on one line: its number, what it is, what was measured, the limit, and the verdict."""
    parts = [f"{row.number:>2}  {word:<7}  {row.figure}"]
    if finding is None:
        parts.append(row.why)
    else:
        parts.append(finding.measured)
        if finding.scale:
            parts.append(f"scale: {finding.scale}")
        parts.append(f"{seconds:.0f} s")
    parts.append(f"limit: {row.limit}")
    return " | ".join(parts)
