"""Run seeds: `python -m fanout_kit.simulation --seed 7 --trace`, or `--seeds 0..999`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from fanout_kit.simulation.bugs import BUGS
from fanout_kit.simulation.plan import draw
from fanout_kit.simulation.run import Report, simulate

_COMMAND = "python -m fanout_kit.simulation"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 every promise was kept, 1 one was broken, 2 usage."""
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description="Run the whole of fanout in virtual time, with faults drawn from a seed."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="one seed: prints what it stands for, what happened and the verdict")
    which.add_argument("--seeds", metavar="A..B", help="every seed from A to B, both included")
    which.add_argument("--bugs", action="store_true", help="list the planted bugs")
    parser.add_argument("--trace", action="store_true", help="with --seed: every line of what happened")
    parser.add_argument("--bug", choices=sorted(BUGS), metavar="NAME", help="plant a bug first (--bugs lists them)")
    parser.add_argument("--keep-going", action="store_true", help="with --seeds: go on after a seed that fails")
    chosen = parser.parse_args(arguments)
    if chosen.bugs:
        for bug in BUGS.values():
            _say(f"{bug.name:22} {bug.says}")
        return 0
    if chosen.trace and chosen.seed is None:
        parser.error("--trace shows one seed: give --seed N.")
    seeds = range(chosen.seed, chosen.seed + 1) if chosen.seed is not None else _range(parser, chosen.seeds)
    with ExitStack() as stack:
        if chosen.bug is not None:
            stack.enter_context(BUGS[chosen.bug].planted())
        if chosen.seed is not None:
            return _one(chosen.seed, chosen.trace)
        return _many(seeds, chosen.bug, chosen.keep_going)


def _range(parser: argparse.ArgumentParser, text: str) -> range:
    first, dots, last = text.partition("..")
    if not (dots and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        parser.error(f"--seeds is {text!r}: write A..B with A not above B, such as 0..999.")
    return range(int(first), int(last) + 1)


def _one(seed: int, trace: bool) -> int:
    _say(draw(seed).spelt())
    report = simulate(seed, echo=_say if trace else None)
    _say(_line(report))
    for violation in report.violations:
        _say(f"  {violation}")
    return 0 if report.ok else 1


def _many(seeds: range, bug: str | None, keep_going: bool) -> int:
    began = time.perf_counter()
    total: Counter[str] = Counter()
    failed = 0
    for seed in seeds:
        report = simulate(seed)
        total.update(report.figures)
        total["seeds"] += 1
        if report.ok:
            continue
        failed += 1
        _say(_line(report))
        for violation in report.violations:
            _say(f"  {violation}")
        _say(f"  replay: {report.command}{f' --bug {bug}' if bug else ''}")
        if not keep_going:
            break
    took = time.perf_counter() - began
    _say(f"{total.pop('seeds')} seeds in {took:.1f} s, {failed} failed; " + _figures(total))
    return 1 if failed else 0


def _line(report: Report) -> str:
    verdict = "ok" if report.ok else f"{len(report.violations)} violations"
    return f"seed {report.seed}: {verdict}, {report.seconds:.1f} virtual seconds, trace {report.digest}; " + _figures(
        report.figures
    )


def _figures(figures: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in figures.items())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
