"""Two revisions in turns: `python -m benchmarks compare REV [NAME …] [--rounds N] [--quick]`.

The files of REV are laid into a temporary folder, and each revision runs its own benchmarks over its own source, with
this interpreter and its packages. Each round runs both, in the other order than the round before. A row that both have
is printed with the medians and the median of the rounds' ratios of now to REV, least and greatest behind it. Contenders
are left out: this program is compared with itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.row import Row, number

__all__ = ["compared", "files_of", "main", "rows_of"]

ROOT = Path(__file__).parents[1]
_CHILD = """
import importlib, inspect, json, sys
from benchmarks import __main__ as every
name, form = sys.argv[1:]
run = importlib.import_module(f"benchmarks.{name}").run
arguments = dict(getattr(every, form)[name])
takes = inspect.signature(run).parameters
arguments |= {key: value for key, value in (("rounds", 1), ("with_node", False), ("with_rivals", False)) if key in takes}
print(json.dumps([row._asdict() for row in run(**arguments)]))
"""
_SOURCES = (".", "transports", "tests/kit")
Figures = Mapping[str, tuple[float, str]]
"""A row's value and unit, by its name."""


def files_of(revision: str, folder: Path) -> str:
    """Lay a revision's files into a folder; its short name. Raises `LookupError` if there is none."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "--verify", "--quiet", f"{revision}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise LookupError(f"There is no revision {revision!r} in this checkout.")
    packed = folder / "files.tar"
    subprocess.run(["git", "archive", "-o", str(packed), found.stdout.strip()], cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", str(packed), "-C", str(folder)], check=True)
    packed.unlink()
    return found.stdout.strip()


def rows_of(tree: Path, name: str, form: str) -> dict[str, tuple[float, str]]:
    """The figures of one benchmark of the revision in a folder, run once."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(tree / source) for source in _SOURCES)}
    ended = subprocess.run(
        [sys.executable, "-c", _CHILD, name, form],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"{name} failed:\n{ended.stderr[-2000:]}")
    found: dict[str, tuple[float, str]] = {}
    for row in json.loads(ended.stdout.splitlines()[-1]):
        if row["unit"] and row["value"]:
            found.setdefault(row["name"], (row["value"], row["unit"]))
    return found


def compared(before: Sequence[Figures], now: Sequence[Figures], revision: str) -> list[Row]:
    """The rows that every round of both has, each with the median of now, compared with `revision` round by round.
    Pure."""
    shared = [name for name in now[0] if all(name in each for each in (*before, *now))]
    rows = []
    for name in shared:
        pairs = [(own[name][0], old[name][0]) for own, old in zip(now, before, strict=True)]
        ratios = [own / old for own, old in pairs]
        rows.append(
            Row(
                name,
                statistics.median(own for own, _ in pairs),
                now[0][name][1],
                revision,
                statistics.median(ratios),
                note=f"{revision}: {number(statistics.median(old for _, old in pairs))}",
                spread=(min(ratios), max(ratios)),
            )
        )
    return rows


def _rounds(
    trees: Sequence[Path], names: Iterable[str], form: str, rounds: int
) -> dict[str, tuple[list[Figures], list[Figures]]]:
    taken: dict[str, tuple[list[Figures], list[Figures]]] = {name: ([], []) for name in names}
    for number_of_round in range(rounds):
        order = (0, 1) if number_of_round % 2 == 0 else (1, 0)
        for name, figures in taken.items():
            for side in order:
                figures[side].append(rows_of(trees[side], name, form))
    return taken


def main(words: Sequence[str], names: Sequence[str]) -> int:
    """Compare, and print; `names` are the benchmarks that there are."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", metavar="REV", help="a commit, tag or branch of this checkout")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names)}; default: broadcast")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that both work")
    chosen = parser.parse_args(words)
    if unknown := [name for name in chosen.names if name not in names]:
        print(f"There is no benchmark {unknown[0]!r}; there are {', '.join(names)}.", file=sys.stderr)
        return 2
    if chosen.rounds < 1:
        parser.error(f"--rounds {chosen.rounds}: give 1 or more.")
    with tempfile.TemporaryDirectory(prefix="fanout-compare-") as folder:
        try:
            revision = files_of(chosen.revision, Path(folder))
        except LookupError as error:
            print(error.args[0], file=sys.stderr)
            return 2
        form = "QUICK" if chosen.quick else "SHORT"
        taken = _rounds((Path(folder), ROOT), chosen.names or ["broadcast"], form, chosen.rounds)
    about: dict[str, Any] = results.machine()
    print(
        f"{results.interpreter(about)}; {chosen.rounds} rounds, this checkout against {revision}; load {about['load']}"
    )
    for name, (before, now) in taken.items():
        print(f"\n{name}")
        for row in compared(before, now, revision):
            print(f"  {row}")
    return 0
