"""The steps that every command shares: opening the engine, running until done or told to stop, and printing in two
forms."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import typer

from fanout import bootstrap
from fanout.bootstrap import Parts
from fanout.cli import early, logs
from fanout.errors import UsageError
from fanout.registry import Registry

__all__ = ["answer", "emit", "execute", "parts", "quoted", "run", "say", "table", "this_program"]


_TWICE = 1.0
"""Seconds in which a second signal is the same wish: `timeout` and Ctrl-C under make both signal twice."""


def parts(
    config: Path | None, command: str, *, create: bool = False, app: str | None = None, binding: str | None = None
) -> Parts:
    """The engine that the configuration describes, not opened. Refuses a database that no second process can see, and
    an app or binding that is none.

    A command that brings something makes the database (`create`); one that only looks at it, or changes existing rows,
    does not.
    """
    registry = Registry()
    made = bootstrap.prepare(bootstrap.make_settings(config, registry=registry), registry, create=create)
    if not made.storage.shared:
        scheme = made.settings.storage.partition(":")[0]
        raise UsageError(
            f'storage = "{scheme}:" lives in one process only, so `fanout {command}` would not see what others put there: '
            'use storage = "sqlite:fanout.db".'
        )
    if app is not None and app not in {name for name, _ in made.transports}:
        names = ", ".join(sorted({name for name, _ in made.transports}))
        raise UsageError(f"--app {app!r} is no app of this configuration: it has {names}.")
    if binding is not None and (app, binding) not in made.transports:
        names = ", ".join(sorted(name for owner, name in made.transports if owner == app))
        raise UsageError(
            f"The app {app} of this configuration has no binding {binding!r}; it has {names}. The shell cannot load "
            "a transport that a program hands over as an object."
        )
    return made


def run(
    command: Callable[[], Awaitable[int]], *, graceful: bool = False, log_format: logs.Format | None = None
) -> None:
    """Do as `execute` does, and exit with the code."""
    raise typer.Exit(execute(command, graceful=graceful, log_format=log_format))


def execute(
    command: Callable[[], Awaitable[int]], *, graceful: bool = False, log_format: logs.Format | None = None
) -> int:
    """Run `command` in an event loop of its own; the exit code that it returns. Logs are in `log_format`
    (`logs.configure`).

    The first SIGINT, SIGTERM or SIGHUP cancels it, so that its contexts are left and the engine drains; the exit code
    is then 1, or 0 where being told to end is how the command ends (`graceful`). One that comes a second later ends the
    process at once.
    """

    async def guarded() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(command())
        stopped = False

        def stop() -> None:
            nonlocal stopped
            if not stopped:
                stopped = True
                task.cancel()
                loop.call_later(_TWICE, _listen, loop, before, None)

        _listen(loop, before, stop)
        try:
            code = await task
        except asyncio.CancelledError:
            if not stopped:
                raise
            say("fanout: stopped; every accepted notification is in the database.")
            code = 0 if graceful else 1
        finally:
            _listen(loop, before, None)
        early.ends_with(code)
        for number, handler in before.items():
            signal.signal(number, handler)
        return code

    logs.configure(log_format)
    before = {number: signal.getsignal(number) for number in early.stops()}
    with asyncio.Runner(loop_factory=bootstrap.loop_factory()) as runner:
        return runner.run(guarded())


def _listen(
    loop: asyncio.AbstractEventLoop, signals: Iterable[signal.Signals], stop: Callable[[], None] | None
) -> None:
    """Call `stop` on these signals; None gives them back to Python."""
    for number in signals:
        try:
            if stop is None:
                loop.remove_signal_handler(number)
            else:
                loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt
            return


def say(text: str, *, level: str = "info") -> None:
    """A line for people, on standard error; an object where logs are JSON."""
    typer.echo(logs.spoken(text, level), err=True)


def emit(values: dict[str, Any]) -> None:
    """A JSON object on a line of standard output."""
    answer(values, "", json=True)


def answer(values: dict[str, Any], text: object, *, json: bool) -> None:
    """The answer on standard output: as a JSON object on a line where `json` is asked for, else the text."""
    typer.echo(orjson.dumps(values, default=str).decode() if json else text)


def table(rows: Sequence[Sequence[object]], heads: Sequence[str]) -> str:
    """Rows under their heads, in columns."""
    cells = [[str(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def this_program() -> list[str]:
    """The words that start this program again: the `fanout` that is running, else Python with -m."""
    started = Path(sys.argv[0])
    if started.name == "fanout" and started.is_file() and os.access(started, os.X_OK):
        return [str(started.absolute())]
    return [sys.executable, "-m", "fanout"]


def quoted(words: Sequence[str]) -> str:
    """A command as one types it."""
    import shlex

    return shlex.join(words)
