"""Former counts, kept by Python minor version; and the verdict on the present counts. Pure, but for the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.guard.counting import part_of
from benchmarks.guard.scenarios import Count

__all__ = ["ARGUED", "COMMIT", "FILE", "LIMIT", "VERSION", "Growth", "compare", "load", "save"]

FILE = Path(__file__).parents[1] / "baseline.json"
COMMIT = "48a4b63"
"""The commit whose counts are in `FILE`, counted by this guard, whose gateway answers with header fields. They stay:
rises since then add up, and are judged by their sum."""
SINCE: Mapping[str, str] = {
    "hosts broadcast": "fb09469",
    "runs broadcast": "fb09469",
    "rest single": "f5c111f",
    "graph single": "f5c111f",
}
"""Scenarios that `COMMIT` does not have (its transports have no runs, and its guard no transport without a wire and no
service), with the commit whose counts stand for them: 1,000 hosts with a delivery each are the engine's cost of a
group, and runs that are answered as they begin its cost of a delivery."""
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Each minor version of Python has a compiler of its own, so its instructions are counted by themselves."""
LIMIT = 0.07
"""The share by which a count may rise since `COMMIT`: 5 % for evidence before verdicts (header blocks walked,
acceptances remembered, fresh connections), 2 % for storage that says which database it leads to and for one validation
of callers' values."""
ARGUED: Mapping[str, float] = {"apns single": LIMIT, "webpush broadcast": LIMIT, "fcm broadcast": LIMIT}
"""Scenarios of which the whole is judged alone, and may rise by so much. A single send is a run of one:
the engine and core take more instructions, storage fewer. In return a broadcast over APNs or FCM takes less than half
of the instructions, and one over Web Push less than three quarters. Blocks are counted with 25 deliveries over FCM and
12 over Web Push. A put, which many callers may share, is therefore a large part of the blocks of storage: they rose by
a quarter."""
RISEN: Mapping[tuple[str, str], float] = {
    ("graph single", "handles"): 2.5,
    ("graph single", "iterations"): 0.2,
    ("runs broadcast", "calls"): 0.16,
}
"""Measures that may rise by so much in a scenario. Storage is asked about the collapse keys of all leases of a batch at
once, in a task each: three handles. One behind the other the questions took a turn of the storage's thread each, and a
post 1,097 us of CPU instead of 715, which the virtual loop does not count: its storage answers at once. A run's
endpoints are a part of their columns, which is three calls, and a fifth fewer instructions than a list of rows."""
_PART = 0.10
"""The share for one part of the program: of a broadcast, storage's blocks rose by 9 % for the same reason."""
_WEIGHT = 0.03
"""A part counts as grown if its rise is at least this share of the whole: the sum shows a rise of one part for
another's saving."""
_LEAST = {"iterations": 5, "writes": 8}
"""A rise of so few in a whole run depends on the events that fell into one iteration of the loop."""
_NAMED = 8
_KEPT = 300
"""A function's count is kept if it is at least this part of the whole."""

Counts: TypeAlias = Mapping[str, Mapping[str, Count]]
"""By scenario and measure."""


@dataclass(frozen=True, slots=True)
class Growth:
    """One count that rose too far. `part` is empty for the whole; `functions` are those that grew most, with before and
    now, per delivery: before is None where it was too little to be kept.
    """

    scenario: str
    measure: str
    part: str
    before: float
    now: float
    functions: tuple[tuple[str, float | None, float], ...]

    def __str__(self) -> str:
        where = f" in {self.part}" if self.part else ""
        rise = f"{self.now / self.before - 1:+.1%}" if self.before else "new"
        lines = [f"{self.scenario}: {self.measure}{where} per delivery {self.before:.6g} -> {self.now:.6g} ({rise})"]
        for name, before, now in self.functions:
            lines.append(f"    {name}: {'new, or was little' if before is None else f'{before:.6g}'} -> {now:.6g}")
        return "\n".join(lines)


def compare(before: Counts, now: Counts, limit: float = LIMIT) -> list[Growth]:
    """Each measure of each scenario that rose by more than that share, or the one argued for it, as a whole or in one
    part of the program."""
    return [
        growth
        for scenario, measures in before.items()
        for measure, count in measures.items()
        for growth in _grown(scenario, measure, count, now[scenario][measure], *_limits(scenario, limit))
    ]


def _limits(scenario: str, limit: float) -> tuple[float, float | None]:
    """The limits for the whole and for a part. A part is not judged where the whole is argued. A limit that was asked
    for is not widened."""
    if not isclose(limit, LIMIT):
        return limit, limit
    return (ARGUED[scenario], None) if scenario in ARGUED else (limit, _PART)


def _grown(
    scenario: str, measure: str, before: Count, now: Count, limit: float, part_limit: float | None
) -> Iterator[Growth]:
    if now.deliveries != before.deliveries:
        raise ValueError(
            f"{scenario}: {measure} was counted of {before.deliveries} deliveries, now of {now.deliveries}: "
            "count that commit anew with this guard."
        )
    limit = max(limit, RISEN.get((scenario, measure), 0.0))
    if now.total > before.total * (1 + limit) and now.total - before.total >= _LEAST.get(measure, 1):
        yield _growth(scenario, measure, "", before.total, now.total, before, now)
        return
    for part, total in now.parts.items() if part_limit is not None else ():
        was = before.parts.get(part, 0)
        if total > was * (1 + part_limit) and total - was > before.total * _WEIGHT:
            yield _growth(scenario, measure, part, was, total, before, now)


def _growth(scenario: str, measure: str, part: str, was: int, total: int, before: Count, now: Count) -> Growth:
    each = now.deliveries
    little = before.total // _KEPT
    changes = sorted(
        (
            (count - before.functions.get(name, min(count, little)), name)
            for name, count in now.functions.items()
            if not part or part_of(name) == part
        ),
        reverse=True,
    )
    functions = tuple(
        (name, before.functions[name] / each if name in before.functions else None, now.functions[name] / each)
        for change, name in changes[:_NAMED]
        if change > 0
    )
    return Growth(scenario, measure, part, was / each, total / each, functions)


# -- the file


def load(file: Path = FILE) -> Counts | None:
    """The counts on this minor version of Python, or None."""
    found = _read(file).get(VERSION)
    if found is None:
        return None
    return {
        scenario: {measure: Count(**count) for measure, count in measures.items()}
        for scenario, measures in found.items()
    }


def save(counts: Counts, file: Path = FILE) -> None:
    """Keep these for this minor version; the others' stay."""
    whole = _read(file) | {
        VERSION: {
            scenario: {measure: _plain(count) for measure, count in measures.items()}
            for scenario, measures in counts.items()
        }
    }
    file.write_text(json.dumps(dict(sorted(whole.items())), indent=1) + "\n")


def _plain(count: Count) -> dict[str, Any]:
    """As JSON. Functions of which there is little are left out: they are in the sums, and too many."""
    plain: dict[str, Any] = {"deliveries": count.deliveries, "total": count.total}
    if count.functions:
        plain["parts"] = dict(count.parts)
        plain["functions"] = {name: n for name, n in count.functions.items() if n * _KEPT >= count.total}
    return plain


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found
