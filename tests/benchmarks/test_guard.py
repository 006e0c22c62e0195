"""A delivery costs no more than it did: calls, instructions, memory blocks, statements, commits, bytes and wake-ups are
counted anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.guard import baseline, command
from benchmarks.guard.command import HOW, main, measured
from benchmarks.guard.scenarios import SCENARIOS, Count

pytestmark = pytest.mark.timeout(300)

COUNT = """
import json
from dataclasses import asdict
from benchmarks.guard.scenarios import measure
print(json.dumps({{what: asdict(count) for what, count in measure({name!r}, ["calls"]).items()}}))
"""
PLANT = """
from fanout.core.run import Run

accept = Run.accept

def one_more(index):
    pass

def accept_and_more(run, indices):
    for index in indices:
        one_more(index)
    accept(run, indices)

Run.accept = accept_and_more
"""


def counted_calls(name: str, plant: str = "") -> dict[str, Count]:
    """The calls of a scenario, in a process of its own, with a plant in it or without."""
    program = plant + COUNT.format(name=name)
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    return {what: Count(**count) for what, count in json.loads(ended.stdout).items()}


def kept() -> baseline.Counts:
    found = baseline.load()
    if found is None:
        pytest.skip(f"there is no baseline for Python {baseline.VERSION}; this makes it: {HOW}")
    return found


@pytest.mark.parametrize("name", ["apns broadcast", "apns single"])
def test_a_delivery_makes_no_more_calls_than_before(name: str) -> None:
    """What else is counted needs ten times as long."""
    before = kept()[name]
    now = counted_calls(name)

    grown = baseline.compare({name: {what: before[what] for what in now}}, {name: now})

    assert not grown, "\n".join(map(str, grown))


@pytest.mark.long("the calls of a broadcast and of single sends are counted")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_delivery_costs_no_more_than_before(name: str) -> None:
    before = kept()
    assert name in before, f"There is no baseline of {name}; this makes it: {HOW}"

    grown = baseline.compare({name: before[name]}, {name: measured(name)})

    report = "\n".join(map(str, grown))
    assert not grown, f"{report}\nRises since {baseline.COMMIT} add up: find what can be saved elsewhere."


def test_one_more_call_per_delivery_is_caught_and_named() -> None:
    before, now = counted_calls("apns broadcast"), counted_calls("apns broadcast", PLANT)

    grown = baseline.compare({"apns broadcast": before}, {"apns broadcast": now}, 0.01)

    assert any("one_more" in str(growth) for growth in grown), grown


def test_growth_is_judged_as_a_whole_and_by_part() -> None:
    before = {"s": {"calls": Count(10, 1000, {"fanout/engine": 100, "fanout/http": 900}, {"fanout/http/a.py f": 900})}}

    def grown(total: int, **parts: int) -> list[str]:
        named = {f"fanout/{part}": count for part, count in parts.items()}
        now = Count(10, total, named, {"fanout/http/a.py f": parts["http"], "fanout/engine/b.py g": parts["engine"]})
        return [f"{growth.part or 'all'}" for growth in baseline.compare(before, {"s": {"calls": now}}, 0.05)]

    assert grown(1050, engine=100, http=940) == []
    assert grown(1051, engine=100, http=940) == ["all"]
    assert grown(1031, engine=131, http=900) == ["fanout/engine"]
    assert grown(1030, engine=130, http=900) == []  # three hundredths of the whole are let pass
    assert grown(900, engine=100, http=800) == []


def test_the_report_names_what_grew_with_its_figures() -> None:
    before = Count(10, 100, {"fanout/http": 100}, {"fanout/http/a.py f": 100})
    now = Count(10, 120, {"fanout/http": 120}, {"fanout/http/a.py f": 100, "fanout/http/b.py g": 20})

    (growth,) = baseline.compare({"s": {"calls": before}}, {"s": {"calls": now}})

    assert str(growth) == "s: calls per delivery 10 -> 12 (+20.0%)\n    fanout/http/b.py g: new, or was little -> 2"


def test_each_version_of_python_keeps_its_own(tmp_path, monkeypatch) -> None:
    file = tmp_path / "baseline.json"
    counts = {"s": {"calls": Count(10, 1000, {"libraries": 1000}, {"a f": 1000}), "commits": Count(10, 3)}}
    baseline.save(counts, file)

    monkeypatch.setattr(baseline, "VERSION", "3.99")
    assert baseline.load(file) is None
    baseline.save({}, file)
    monkeypatch.undo()

    assert baseline.load(file) == counts
    assert set(json.loads(file.read_text())) == {baseline.VERSION, "3.99"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Count]]:
    """What the guard finds, instead of counting for a minute."""
    found = {
        name: {"calls": Count(10, 1000, {"fanout/http": 1000}, {"fanout/http/a.py f": 1000})} for name in SCENARIOS
    }
    monkeypatch.setattr(command, "measured", lambda name: found[name])
    return found


def rise(found: dict[str, dict[str, Count]], total: int) -> None:
    for name in found:
        found[name] = {"calls": Count(10, total, {"fanout/http": total}, {"fanout/http/a.py f": total})}


def test_limit_and_baseline_are_arguments(counted, tmp_path, capsys) -> None:
    file = tmp_path / "mine.json"
    assert main(["--baseline", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
    assert main(["--update", "--baseline", str(file)]) == 0
    rise(counted, 1020)
    assert main(["--baseline", str(file)]) == 0
    assert main(["--baseline", str(file), "--limit", "1"]) == 1
    assert main(["--baseline", str(file), "--limit", "0"]) == 1
    rise(counted, 1080)
    assert main(["--baseline", str(file)]) == 1
    assert "over 7 %" in capsys.readouterr().err.lower()
    assert main(["--baseline", str(file), "--limit", "10"]) == 0


@pytest.mark.parametrize("words", [["--limit", "-1"], ["--limit", "nan"], ["--limit", "inf"], ["--limit", "few"]])
def test_a_limit_that_is_none_is_refused(counted, words, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "--limit" in capsys.readouterr().err


def test_the_baseline_of_the_commit_stays(counted, monkeypatch, tmp_path, capsys) -> None:
    """Kept anew with each rise, it would let them add up unseen."""
    file = tmp_path / "baseline.json"
    monkeypatch.setattr(baseline, "FILE", file)
    assert main(["--update", "--baseline", str(file)]) == 0  # a version of Python that it did not have
    before = file.read_bytes()
    rise(counted, 2000)
    with pytest.raises(SystemExit) as ended:
        main(["--update", "--baseline", str(file)])
    assert ended.value.code == 2
    assert baseline.COMMIT in capsys.readouterr().err
    assert file.read_bytes() == before
