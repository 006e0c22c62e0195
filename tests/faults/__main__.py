"""`python -m tests.faults [--short] [--seed N] [ROW …]`: the fault run, one line per row."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.all_rows import ROWS
from tests.faults.run import Run, line


def main() -> int:
    """Exit code 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault run, one line per row.")
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help="numbers of rows; default: all of them")
    parser.add_argument("--short", action="store_true", help="seconds for each row, as in the tests")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    chosen = parser.parse_args()
    if not hasattr(os, "pidfd_open"):
        parser.error("needs Linux: processes of the trial are awaited through pidfd_open")
    numbers = set(chosen.rows) or {row.number for row in ROWS}
    unknown = numbers - {row.number for row in ROWS}
    if unknown:
        parser.error(f"no row has the number {min(unknown)}; they go from {ROWS[0].number} to {ROWS[-1].number}")
    began = time.monotonic()
    form = "short" if chosen.short else "long"
    print(f"fault run, {form} form, seed {chosen.seed}, commit {_commit()}", flush=True)
    counts = {"pass": 0, "FAIL": 0, "not run": 0}
    with Run(long=not chosen.short, seed=chosen.seed) as run:
        for row in ROWS:
            if row.number not in numbers:
                continue
            said, seconds = run.row(row)
            counts[said.word] += 1
            print(line(row, said, seconds), flush=True)
            for text in said.finding.details if said.finding else ():
                print(f"      {text}", flush=True)
    total = ", ".join(f"{count} {word}" for word, count in counts.items())
    print(f"{total}; {time.monotonic() - began:.0f} s")
    return 1 if counts["FAIL"] else 0


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
