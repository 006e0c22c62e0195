"""`python -m benchmarks guard [--limit PERCENT] [--baseline FILE] [--update]`: count, and compare with the former
counts."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.guard import baseline
from benchmarks.guard.scenarios import SCENARIOS, Count, measure

__all__ = ["HOW", "main", "measured"]

HOW = f"python -m benchmarks guard --update, with the code of {baseline.COMMIT}"
"""The command that makes the baseline."""


def measured(name: str) -> dict[str, Count]:
    """Count one scenario in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.guard.command", "--measure", name]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        raise RuntimeError(f"Counting {name} failed:\n{ended.stderr}")
    return {what: Count(**count) for what, count in json.loads(ended.stdout).items()}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks guard", description=__doc__)
    parser.add_argument(
        "--limit",
        type=float,
        default=baseline.LIMIT * 100,
        metavar="PERCENT",
        help=f"by how much a count may rise over the baseline; default: {baseline.LIMIT * 100:g}",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        default=baseline.FILE,
        metavar="FILE",
        help=f"the former counts; default: {baseline.FILE.name}, the counts of commit {baseline.COMMIT}",
    )
    parser.add_argument(
        "--update", action="store_true", help="keep what is counted now as this Python's part of --baseline"
    )
    parser.add_argument("--measure", metavar="SCENARIO", choices=SCENARIOS, help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.measure:
        print(json.dumps({what: asdict(count) for what, count in measure(chosen.measure).items()}))
        return 0
    if not 0 <= chosen.limit < float("inf"):
        parser.error(f"--limit {chosen.limit:g}: give a percentage from 0 on, such as 5.")
    before = baseline.load(chosen.baseline)
    if chosen.update and chosen.baseline == baseline.FILE and before is not None:
        parser.error(
            f"{baseline.FILE.name} keeps the counts of {baseline.COMMIT}, from which rises are added up: name a file of your own with --baseline."
        )
    now = {name: measured(name) for name in SCENARIOS}
    for name, counts in now.items():
        print(f"\n{name}, per delivery")
        for what, count in counts.items():
            each = count.total / count.deliveries
            old = before[name][what] if before is not None and what in before.get(name, {}) else None
            change = f"  {each * old.deliveries / old.total - 1:+.2%}" if old is not None and old.total else ""
            print(f"  {what:<14}{each:>12,.3f}{change}")
    if chosen.update:
        baseline.save(now, chosen.baseline)
        print(f"\nKept in {chosen.baseline} for Python {baseline.VERSION}.")
        return 0
    if before is None:
        print(
            f"\nThere is no baseline for Python {baseline.VERSION} in {chosen.baseline}. This makes it: {HOW}",
            file=sys.stderr,
        )
        return 2
    grown = baseline.compare(before, now, chosen.limit / 100)
    for growth in grown:
        print(f"\n{growth}")
    if grown:
        print(
            f"\nOver {chosen.limit:g} % since {chosen.baseline.name}: find what can be saved elsewhere.",
            file=sys.stderr,
        )
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
