"""The table is whole: each row is measured, proved elsewhere or not run for a reason; and no failpoint without a
row."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fanout_kit.faulty import NAMES
from tests.faults.all_rows import ROWS
from tests.faults.endings import Ending, told_to_end
from tests.faults.nursery import Nursery
from tests.faults.rows.kills import SCENES
from tests.faults.rows.versions import POINTS
from tests.faults.run import line, measure, verdict
from tests.faults.table import Finding, Row
from tests.faults.world import Form, until

ROOT = Path(__file__).parents[2]


def test_every_row_is_there_once_and_says_what_becomes_of_it() -> None:
    assert [row.number for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 65, "a row is gone"
    for row in ROWS:
        assert sum((row.run is not None, bool(row.see), bool(row.why))) == 1, row.number
        assert row.figure
        assert row.limit


@pytest.mark.parametrize("row", [row for row in ROWS if row.see], ids=lambda row: str(row.number))
def test_what_a_row_points_to_exists(row: Row) -> None:
    for place in row.see:
        assert (ROOT / place).exists(), place


def test_every_failpoint_has_its_row() -> None:
    assert {name.rpartition(" ")[2] for name in SCENES} | set(POINTS) == set(NAMES)


def test_a_row_is_one_line() -> None:
    for row in ROWS:
        assert "\n" not in line(row, verdict(Finding("found", False, "scale"), long=True), 1.0)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("time", [None, False, True])
@pytest.mark.parametrize("counts", [False, True])
def test_time_is_judged_in_the_long_form_alone(counts: bool, time: bool | None, long: bool) -> None:
    said = verdict(Finding("found", counts, time=time), long=long)
    assert said.failed == (not counts or (long and time is False))
    words = {(None, True): "", (None, False): "", (True, True): "in time", (False, True): "not in time"}
    assert said.time == words.get((time, long), "not judged")
    assert ("time: not judged" in line(ROWS[0], said, 1.0)) == (time is not None and not long)


def test_no_row_decides_about_its_time_itself() -> None:
    for file in sorted((ROOT / "tests" / "faults" / "rows").glob("*.py")):
        assert "or not form.long" not in file.read_text(encoding="utf-8"), file.name


@pytest.mark.anyio
async def test_a_failed_row_says_how_its_processes_ended(tmp_path: Path, nursery: Nursery) -> None:
    async def run(form: Form) -> Finding:
        form.endings.append(Ending("work-1", 3, "Traceback\nKeyError: 'x'\n"))
        return Finding("workers that failed 1", False)

    row = Row(number=1, figure="x", limit="y", run=run)
    said = await measure(row, Form(False, tmp_path, nursery))
    assert said.failed
    assert said.finding is not None
    assert said.finding.details == ("work-1 ended with 3; its last words: Traceback / KeyError: 'x'",)


@pytest.mark.parametrize(
    ("code", "said", "clean"),
    [
        (0, "Working on it", True),
        (1, "", False),
        (-signal.SIGTERM, "", True),
        (-signal.SIGTERM, "Working on x.db for default/apns. Ctrl-C ends.", False),
        (-signal.SIGKILL, "", False),
    ],
)
def test_death_by_sigterm_is_clean_before_the_worker_holds_anything(code: int, said: str, clean: bool) -> None:
    assert Ending("work-1", code, said).clean == clean


@pytest.mark.anyio
async def test_a_process_that_is_told_to_end_has_its_code_and_last_words(tmp_path: Path, nursery: Nursery) -> None:
    child = nursery.spawn("tests.faults.test_table:stubborn", ["stubborn"], log=tmp_path / "stubborn.log")
    await until(lambda: "ready" in child.said, what="the child's handler")
    (ending,) = await told_to_end([child])
    assert (ending.name, ending.code, ending.clean) == ("stubborn", 7, False)
    assert "its last words: ready / told" in str(ending)


def stubborn() -> int:
    """A child that ends with 7 when it is told to."""

    def told(number: int, frame: object) -> None:
        print("told", flush=True)
        os._exit(7)

    signal.signal(signal.SIGTERM, told)
    print("ready\n", end="", flush=True)  # one write: the signal may come right after the word
    signal.pause()
    return 0
