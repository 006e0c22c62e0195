"""What the runs are, and what their outcomes say together. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["SHORTEST", "Differing", "Trial", "differing", "plan"]

SHORTEST, LONGEST = 1e-6, 0.05
"""Switch intervals, in seconds. Python's own is 5 ms."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the suite. `interval` in seconds."""

    number: int
    seed: int
    interval: float
    busy: bool

    def __str__(self) -> str:
        beside = "beside two busy processes" if self.busy else "alone"
        return f"run {self.number}: order {self.seed}, switch interval {self.interval * 1e6:,.0f} us, {beside}"


def plan(runs: int, seed: int) -> list[Trial]:
    """So many trials: intervals evenly spread over their logarithm, in random order; every other run is busy."""
    rng = random.Random(seed)
    steps = max(1, runs - 1)
    intervals = [SHORTEST * (LONGEST / SHORTEST) ** (step / steps) for step in range(runs)]
    # Short and long ones among the busy runs as among the others.
    pairs = [intervals[n : n + 2] for n in range(0, runs, 2)]
    for pair in pairs:
        rng.shuffle(pair)
    rng.shuffle(pairs)
    drawn = [interval for pair in pairs for interval in pair]
    return [Trial(n + 1, rng.getrandbits(31), interval, n % 2 == 1) for n, interval in enumerate(drawn)]


@dataclass(frozen=True, slots=True)
class Differing:
    """A test whose outcome is not the same in each run, or that fails in all of them."""

    test: str
    outcomes: tuple[str, ...]
    """By run, in their order; `missing` where a run did not come to it."""
    reason: str
    """The first words of one of its failures."""

    def __str__(self) -> str:
        runs: dict[str, list[str]] = {}
        for number, outcome in enumerate(self.outcomes, 1):
            runs.setdefault(outcome, []).append(str(number))
        said = ", ".join(f"{outcome} in {', '.join(numbers)}" for outcome, numbers in runs.items())
        return f"{self.test}: {said}" + (f"\n    {self.reason}" if self.reason else "")


def differing(found: Sequence[Mapping[str, tuple[str, str]]]) -> list[Differing]:
    """Of each run's outcomes, by test (outcome, first words of its failure): what is not the same in all, or failed."""
    listed = []
    for test in sorted({test for outcomes in found for test in outcomes}):
        each = [outcomes.get(test, ("missing", "")) for outcomes in found]
        words = tuple(outcome for outcome, _ in each)
        if len(set(words)) > 1 or words[0] not in ("passed", "skipped"):
            listed.append(Differing(test, words, next((reason for _, reason in each if reason), "")))
    return listed
