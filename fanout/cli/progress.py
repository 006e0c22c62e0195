"""Answers and progress as they come, on a terminal and off it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from fanout.cli.shell import answer, say
from fanout.engine.live import SettledDelivery

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Following", "Meter"]


class Following:
    """A batch hook that prints how each delivery of one notification ended, once each."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._id = ""
        self._early: list[SettledDelivery] = []
        self._seen: set[int] = set()

    def follow(self, id: str) -> None:
        """From now on print this one's; results that were settled before its id was known are printed first."""
        self._id = id
        early, self._early = self._early, []
        self.on_settled(early)

    def on_settled(self, batch: Sequence[SettledDelivery]) -> None:
        """These deliveries have ended."""
        if not self._id:
            self._early.extend(batch)
            return
        for delivery in batch:
            if delivery.notification != self._id:
                continue
            with suppress(OSError):  # the command prints it once more at its end, and ends by what then goes wrong
                self.answered(delivery.endpoint, delivery.state, delivery.reason)

    def answered(self, endpoint: int, state: str, reason: str) -> None:
        """One delivery's end, unless it was printed before."""
        if endpoint in self._seen:
            return
        line = f"  endpoint {endpoint}: {state}" + (f" ({reason})" if reason else "")
        answer({"endpoint": endpoint, "state": state, "reason": reason}, line, json=self._json)
        self._seen.add(endpoint)


class Meter:
    """How far something has got: a live bar on a terminal, a line now and then elsewhere, all on standard error.

    `total` may be None where it is not known yet. `every` is how many seconds lie between two plain lines at least.
    """

    def __init__(self, what: str, *, total: int | None = None, every: float = 2.0) -> None:
        self._what = what
        self._total = total
        self._every = every
        self._done = 0
        self._text = ""
        self._said_at = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._what, total=self._total, text="")
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._text:
            self._line()

    def advance(self, by: int) -> None:
        """So much more of the total is done."""
        self._done += by

    def show(self, text: str, *, done: int | None = None, total: int | None = None) -> None:
        """Say where things stand; `done` and `total` replace the counts."""
        self._text = text
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, total=self._total, text=text)
        elif time.monotonic() - self._said_at >= self._every:
            self._line()

    def _line(self) -> None:
        share = f" {100 * self._done // self._total}%" if self._total else ""
        say(f"{self._what}{share}: {self._text}")
        self._said_at = time.monotonic()
        self._text = ""
