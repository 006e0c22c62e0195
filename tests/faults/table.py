"""The table of the fault run: a row states a figure, its limit, and the function that measures it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.faults.world import Form

__all__ = ["Finding", "Measure", "NotRun", "Row", "measured"]


class NotRun(Exception):
    """This machine or user cannot run the row: the text says what it needs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a row found: the figures in words, and two verdicts apart. `run.verdict` makes one of them."""

    measured: str
    counts: bool
    """Whether what does not depend on the machine's speed is as it must be: counts, order, states."""
    scale: str = ""
    details: tuple[str, ...] = ()
    """Lines that stand below the row's own."""
    time: bool | None = None
    """Whether what depends on the machine's speed is within its limit; None where the row has no such limit."""


Measure = Callable[[Form], Awaitable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row. It is measured by `run`, proved by the tests that `see` names, or not run for the reason in `why`."""

    number: int
    figure: str
    limit: str
    run: Measure | None = None
    see: tuple[str, ...] = field(default=())
    why: str = ""


def measured(number: int, figure: str, limit: str) -> Callable[[Measure], Row]:
    """Makes a row of the coroutine function that measures it.

    `number` is the next free one (`all_rows`), `figure` the measured thing, and `limit` the condition under which the
    row passes. The function is given a `Form` (long or short, with a folder, a seed and its processes), and raises
    `NotRun` where this machine lacks a program.
    """

    def made(run: Measure) -> Row:
        return Row(number=number, figure=figure, limit=limit, run=run)

    return made
