"""All benchmarks, one after the other: `python -m benchmarks [NAME …] [--all | --quick]`. `benchmarks/README.md` says
what they mean.

Rows are printed, and kept in `bench-results/` as JSON with a picture of each figure.

`python -m benchmarks guard [--update]` counts the cost of a delivery, and compares with its former cost. `python -m
benchmarks compare REV [NAME …]` runs this checkout and another revision in turns. `python -m benchmarks report
[--write]` makes Markdown tables of the kept rows; with `--write` it keeps them in `figures.json` and fills the pages
that show them: README.md, `docs/` and `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures, results, rig
from benchmarks.row import Row

QUICK: dict[str, dict[str, Any]] = {
    "http_client": {"rounds": 1, "requests": 2000, "with_rivals": False},
    "broadcast": {"rounds": 1, "devices": 2000, "with_rivals": False},
    "steps": {"rounds": 1, "devices": 2000},
    "engine": {"devices": 2000, "large_devices": 4000, "sends": 2, "rounds": 1},
    "lanes": {"bulk": 3000, "sends": 3, "apps": 3, "rounds": 1, "seconds": 0.3},
    "storage": {"endpoints": 2000},
    "fcm": {"rounds": 1, "devices": 1000, "messages": 20},
    "wns": {"rounds": 1, "pushes": 400},
    "webpush": {"rounds": 1, "browsers": 200, "with_rivals": False},
    "kills": {"kills": 1},
    "service": {"posts": 100, "users": 20},
    "micro": {"count": 1000, "rounds": 1},
    "macro": {"devices": 2000, "sends": 200, "outage": 0.2, "outage_devices": 5000, "starts": 1, "mixed": 0},
    "growth": {"endpoints": 1000, "deliveries": 1000, "notifications": 1, "hosts": 1, "real_hosts": 0, "apps": 1,
               "rounds": 1},
    "sealing": {"endpoints": 2000, "rounds": 1},
    "postgres": {"devices": 2000, "rounds": 1, "imports": 5000, "sends": 200, "with_rivals": False},
}  # fmt: skip
"""All benchmarks, in order, with small arguments: enough to show that each still runs, too little to quote."""

SHORT: dict[str, dict[str, Any]] = {
    "http_client": {"rounds": 5, "requests": 20_000},
    "broadcast": {"rounds": 3, "devices": 100_000},
    "steps": {"rounds": 3, "devices": 100_000},
    "engine": {"devices": 100_000, "large_devices": 200_000, "sends": 20, "rounds": 3},
    "lanes": {"bulk": 300_000, "sends": 100, "apps": 99, "rounds": 3, "seconds": 1.5},
    "storage": {"endpoints": 50_000},
    "fcm": {"rounds": 3, "devices": 30_000, "messages": 1000},
    "wns": {"rounds": 3, "pushes": 5000},
    "webpush": {"rounds": 3, "browsers": 4000},
    "kills": {"kills": 5},
    "service": {"posts": 2000, "users": 200},
    "micro": {"count": 20_000, "rounds": 5},
    "macro": {"devices": 200_000, "sends": 10_000, "outage": 5.0, "outage_devices": 100_000, "starts": 5, "mixed": 10_000},
    "growth": {"endpoints": 100_000, "deliveries": 30_000, "notifications": 100, "hosts": 1000, "real_hosts": 100,
               "apps": 100, "rounds": 1},
    "sealing": {"endpoints": 50_000, "rounds": 3},
    "postgres": {"devices": 50_000, "rounds": 3, "imports": 100_000, "sends": 5000},
}  # fmt: skip
"""The benchmarks of `make bench`: all of it in less than ten minutes on a machine that has nothing else to do. `--all`
is each one's own default."""


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == ["guard"]:
        from benchmarks.guard.command import main as guard

        return guard(words[1:])
    if words[:1] == ["report"]:
        return report(words[1:])
    if words[:1] == ["compare"]:
        from benchmarks.compare import main as compare

        return compare(words[1:], list(QUICK))
    return measure(words)


def measure(words: Sequence[str]) -> int:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(QUICK)}; default: all")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny runs, to see that they work")
    size.add_argument("--all", action="store_true", help="the full form: a million endpoints, most of an hour")
    parser.add_argument("--results", type=Path, default=results.FOLDER, metavar="FOLDER", help="default: bench-results")
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.names if name not in QUICK]
    if unknown:
        print(f"There is no benchmark {unknown[0]!r}; there are {', '.join(QUICK)}.", file=sys.stderr)
        return 2
    form = "quick" if chosen.quick else "full" if chosen.all else "short"
    print(f"{results.interpreter(results.machine())}; {rig.cores('client', 'gateway')}; {form} form")
    begun, about, date = time.perf_counter(), results.machine(), results.today()
    for name in chosen.names or QUICK:
        print(f"\n{name}", flush=True)
        arguments = {"quick": QUICK, "short": SHORT, "full": {}}[form].get(name, {})
        rows: list[Row] = importlib.import_module(f"benchmarks.{name}").run(**arguments)
        for row in rows:
            print(f"  {row}", flush=True)
        results.write(name, form, rows, chosen.results, about, date)
    print(f"\n{time.perf_counter() - begun:.0f} s; rows and pictures are in {chosen.results}/", file=sys.stderr)
    return 0


def report(words: Sequence[str]) -> int:
    """Tables of the kept rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report")
    parser.add_argument("--write", action="store_true", help="put them into figures.json and the pages")
    parser.add_argument("--results", type=Path, default=results.FOLDER, metavar="FOLDER", help="default: bench-results")
    chosen = parser.parse_args(words)
    found = results.read(chosen.results)
    if not found:
        print(f"There is nothing in {chosen.results}/: run `make bench` or `make bench-all` first.", file=sys.stderr)
        return 2
    if chosen.write:
        if wrong := figures.faults(found, list(QUICK)):
            print("\n".join(wrong), file=sys.stderr)
            return 2
        print(f"Filled: {', '.join(figures.write(found))}.")
        return 0
    for name, kept in found.items():
        print(f"### {name}\n\n{results.markdown(kept)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
