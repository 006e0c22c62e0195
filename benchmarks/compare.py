"""Two revisions in turns: `python -m benchmarks compare REV [NAME …] [--python PATH …] [--rounds N] [--quick]`.

The files of REV are laid into a temporary folder, and each revision runs its own benchmarks over its own source, with
this interpreter and its packages. Each round runs both, in the other order than the round before. A row that both have
is printed with the medians and the median of the rounds' ratios of now to REV, least and greatest behind it. A rate is
followed by its CPU, which a busy machine disturbs less. Contenders are left out: this program is compared with itself.

With `--python PATH` REV runs under that interpreter, a virtual environment's with the extras `dev` and `bench`, and
this checkout under the present one: REV is then usually HEAD. Each `--python` is a side of its own, and all take turns
in one run.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.row import Row, number

__all__ = ["Side", "compared", "files_of", "main", "rows_of"]

ROOT = Path(__file__).parents[1]
_CHILD = """
import importlib, inspect, json, sys
from benchmarks import __main__ as every
name, form, chosen = sys.argv[1:]
run = importlib.import_module(f"benchmarks.{name}").run
arguments = dict(getattr(every, form)[name])
takes = inspect.signature(run).parameters
arguments |= {key: value for key, value in (("rounds", 1), ("with_node", False), ("with_rivals", False)) if key in takes}
arguments |= {key: value for key, value in json.loads(chosen).items() if key in takes}
print(json.dumps([row._asdict() for row in run(**arguments)]))
"""
_ABOUT = "import json; from benchmarks import results; print(json.dumps(results.interpreter(results.machine())))"
_SOURCES = (".", "transports", "tests/kit")
_CPU = "us of CPU"
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


@dataclass(frozen=True, slots=True)
class Side:
    """One contender: the revision in a folder, under an interpreter. `name` stands in the rows."""

    name: str
    tree: Path
    python: str = sys.executable

    def ask(self, *words: str) -> Any:
        """The JSON of the last line that a program of this side prints. Raises `RuntimeError` with the end of its
        errors."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(self.tree / source) for source in _SOURCES)}
        ended = subprocess.run(
            [self.python, "-c", *words], cwd=self.tree, env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{self.python} failed:\n{ended.stderr[-2000:]}")
        return json.loads(ended.stdout.splitlines()[-1])


def rows_of(side: Side, name: str, form: str, chosen: Mapping[str, float]) -> dict[str, tuple[float, str]]:
    """The figures of one benchmark of a side, run once; `chosen` stands instead of arguments of that form."""
    found: dict[str, tuple[float, str]] = {}
    for row in side.ask(_CHILD, name, form, json.dumps(dict(chosen))):
        if row["unit"] and row["value"]:
            found.setdefault(row["name"], (row["value"], row["unit"]))
            if row.get("client_cpu") and not row["unit"].startswith(_CPU):
                found.setdefault(f"{row['name']}: the client's CPU", (row["client_cpu"], _CPU))
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
    sides: Sequence[Side], names: Iterable[str], form: str, chosen: Mapping[str, float], rounds: int
) -> dict[str, list[list[Figures]]]:
    """By benchmark, for each side its figures of each round."""
    taken: dict[str, list[list[Figures]]] = {name: [[] for _ in sides] for name in names}
    turns = list(range(len(sides)))
    for _ in range(rounds):
        for name, figures in taken.items():
            for turn in turns:
                figures[turn].append(rows_of(sides[turn], name, form, chosen))
        turns.reverse()
    return taken


def _sides(revision: str, tree: Path, pythons: Sequence[str]) -> list[Side]:
    """This checkout first, its contenders behind it. Raises `LookupError` for an interpreter that does not run."""
    sides = [Side("this checkout", ROOT)]
    if not pythons:
        return [*sides, Side(revision, tree)]
    for python in pythons:
        path = str(Path(python).absolute())  # a side runs in its own folder
        try:
            build = Side("", ROOT, path).ask(_ABOUT)
        except (OSError, RuntimeError) as error:
            raise LookupError(
                f"--python {python}: no interpreter that can run the benchmarks ({str(error).strip().splitlines()[-1]}). "
                "Make a virtual environment of it, install .[dev,bench] there, and name its bin/python."
            ) from error
        sides.append(Side(f"{revision} on {build}", tree, path))
    return sides


def _number(word: str) -> tuple[str, float]:
    """NAME=NUMBER of `--set`; an integer without a point."""
    name, _, value = word.partition("=")
    return name, float(value) if "." in value else int(value)


def main(words: Sequence[str], names: Sequence[str]) -> int:
    """Compare, and print; `names` are the benchmarks that there are."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", metavar="REV", help="a commit, tag or branch of this checkout")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names)}; default: broadcast")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PATH", help="run REV under it; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that both work")
    parser.add_argument(
        "--set", action="append", type=_number, default=[], metavar="NAME=NUMBER",
        help="an argument of the benchmarks instead of the form's, such as devices=50000; may be repeated",
    )  # fmt: skip
    chosen = parser.parse_args(words)
    if unknown := [name for name in chosen.names if name not in names]:
        print(f"There is no benchmark {unknown[0]!r}; there are {', '.join(names)}.", file=sys.stderr)
        return 2
    if chosen.rounds < 1:
        parser.error(f"--rounds {chosen.rounds}: give 1 or more.")
    benchmarks, form = chosen.names or ["broadcast"], "QUICK" if chosen.quick else "SHORT"
    for benchmark in benchmarks:
        takes = inspect.signature(importlib.import_module(f"benchmarks.{benchmark}").run).parameters
        if unknown := [name for name, _ in chosen.set if name not in takes]:
            parser.error(f"--set {unknown[0]}: {benchmark} takes {', '.join(takes)}.")
    with tempfile.TemporaryDirectory(prefix="fanout-compare-") as folder:
        try:
            sides = _sides(files_of(chosen.revision, Path(folder)), Path(folder), chosen.python)
        except LookupError as error:
            print(error.args[0], file=sys.stderr)
            return 2
        taken = _rounds(sides, benchmarks, form, dict(chosen.set), chosen.rounds)
    about: dict[str, Any] = results.machine()
    against = ", ".join(side.name for side in sides[1:])
    print(
        f"{results.interpreter(about)}; {chosen.rounds} rounds, this checkout against {against}; load {about['load']}"
    )
    for name, (now, *others) in taken.items():
        print(f"\n{name}")
        for side, before in zip(sides[1:], others, strict=True):
            for row in compared(before, now, side.name):
                print(f"  {row}")
    return 0
