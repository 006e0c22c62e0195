"""Runs rows: one at a time, each in a folder of its own, and says what came of it. Alone decides what a finding is
worth."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.nursery import Nursery
from tests.faults.table import Finding, NotRun, Row
from tests.faults.world import Form

__all__ = ["Run", "Verdict", "line", "measure", "verdict"]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a row."""

    word: str
    """`pass`, `FAIL` or `not run`."""
    finding: Finding | None = None
    time: str = ""
    """What is said of its time: nothing where it has no limit."""

    @property
    def failed(self) -> bool:
        """Whether the row failed."""
        return self.word == "FAIL"


def verdict(finding: Finding, *, long: bool) -> Verdict:
    """Counts are judged in each form. Time is judged in the long one: the short one runs beside other tests on a busy
    machine."""
    if finding.time is None:
        time_word = ""
    elif long:
        time_word = "in time" if finding.time else "not in time"
    else:
        time_word = "not judged"
    passed = finding.counts and (finding.time is not False or not long)
    return Verdict("pass" if passed else "FAIL", finding, time_word)


async def measure(row: Row, form: Form) -> Verdict:
    """Measure it here and now; what goes wrong on the way is a finding too, and so is how its processes ended."""
    assert row.run is not None
    try:
        finding = await row.run(form)
    except NotRun as reason:
        return Verdict("not run", Finding(str(reason), True))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        finding = Finding(
            f"the trial itself failed: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})",
            False,
            details=tuple(traceback.format_exc().splitlines()),
        )
    said = verdict(finding, long=form.long)
    if said.failed:
        ends = tuple(str(end) for end in form.endings)
        said = replace(said, finding=replace(finding, details=finding.details + ends))
    return said


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

    def row(self, row: Row) -> tuple[Verdict, float]:
        """The verdict, and the seconds that it took."""
        began = time.monotonic()
        if row.run is not None:
            said = asyncio.run(measure(row, self.form(row.number)))
        elif row.see:
            said = verdict(self.tests(row), long=self.long)
        else:
            said = Verdict("not run")
        return said, time.monotonic() - began


def line(row: Row, said: Verdict, seconds: float) -> str:
    """A row on one line: its number, the verdict, what it is, what was measured, what is said of its time, and the
    limit."""
    parts = [f"{row.number:>2}  {said.word:<7}  {row.figure}"]
    if said.finding is None:
        parts.append(row.why)
    else:
        parts.append(said.finding.measured)
        if said.time:
            parts.append(f"time: {said.time}")
        if said.finding.scale:
            parts.append(f"scale: {said.finding.scale}")
        parts.append(f"{seconds:.0f} s")
    parts.append(f"limit: {row.limit}")
    return " | ".join(parts)
