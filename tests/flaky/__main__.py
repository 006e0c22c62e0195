"""The command line of `tests.flaky`."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.flaky.trials import Trial, differing, plan
from tests.side_by_side import SIDE_BY_SIDE

__all__ = ["environment", "main"]

_ROOT = Path(__file__).parents[2]
_BUSY = 2


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 1 if a test's outcome differs, or a test fails; 2 where a run came to no test at all."""
    parser = argparse.ArgumentParser(prog="python -m tests.flaky", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="at least 2; default: 10")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31), metavar="N")
    parser.add_argument("--one-process", action="store_true", help="for a small selection")
    chosen, rest = parser.parse_known_args(words)
    if chosen.runs < 2:
        parser.error(f"--runs {chosen.runs}: outcomes of at least 2 runs can differ.")
    print(f"{chosen.runs} runs, seed {chosen.seed}", flush=True)
    found: list[dict[str, tuple[str, str]]] = []
    with tempfile.TemporaryDirectory(prefix="fanout-flaky-") as folder:
        for trial in plan(chosen.runs, chosen.seed):
            began = time.monotonic()
            outcomes, last = _run(trial, Path(folder), [] if chosen.one_process else [*SIDE_BY_SIDE], rest)
            print(f"{trial}: {last}, {time.monotonic() - began:.0f} s", flush=True)
            if not outcomes:
                print(f"{trial} came to no test: {last}", file=sys.stderr)
                return 2
            for test, (outcome, reason) in sorted(outcomes.items()):
                if outcome not in ("passed", "skipped"):
                    print(f"  {outcome} {test}: {reason}", flush=True)
            if any(outcome == "failed" for outcome, _ in outcomes.values()):
                kept = shutil.copy(Path(folder) / f"{trial.number}.log", f"{folder}-{trial.number}.log")
                print(f"  its output: {kept}", flush=True)
            found.append(outcomes)
    listed = differing(found)
    for each in listed:
        print(each)
    print(f"{len(listed)} of {len(set().union(*found))} tests differ")
    return 1 if listed else 0


def environment(trial: Trial, outcomes: Path) -> dict[str, str]:
    """What a run's processes are told. They look for modules where they did, and before that in `everywhere`."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent / "everywhere"), os.environ.get("PYTHONPATH"))))
    return os.environ | {
        "PYTHONPATH": path,
        "TESTS_SWITCH_INTERVAL": f"{trial.interval:.9f}",
        "TESTS_ORDER": str(trial.seed),
        "TESTS_OUTCOMES": str(outcomes),
    }


def _run(trial: Trial, folder: Path, how: Sequence[str], rest: Sequence[str]) -> tuple[dict[str, tuple[str, str]], str]:
    """Each test's outcome with the first words of its failure, and the last line that pytest said."""
    outcomes = folder / f"{trial.number}.jsonl"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.flaky.order", "-p", "no:cacheprovider", *how, *rest]
    with _busy(_BUSY if trial.busy else 0):
        ran = subprocess.run(
            command, cwd=_ROOT, env=environment(trial, outcomes), capture_output=True, text=True, check=False
        )
    (folder / f"{trial.number}.log").write_text(ran.stdout + ran.stderr)
    found: dict[str, tuple[str, str]] = {}
    for line in outcomes.read_text(encoding="utf-8").splitlines() if outcomes.exists() else ():
        test, outcome, reason = json.loads(line)
        # A test that passed, and whose clearing away failed, has two lines: the worse one counts.
        if found.get(test, ("passed", ""))[0] in ("passed", "skipped"):
            found[test] = (outcome, reason)
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
    return found, said[-1].strip("= ") if said else f"exit code {ran.returncode}"


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that never wait for anything, meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
