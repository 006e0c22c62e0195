"""`fanout users`: the stored data of one user: erased, or exported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer

from fanout.cli.key_files import new_file
from fanout.cli.options import App, Config, Json
from fanout.cli.shell import answer, emit, parts, run, say
from fanout.engine.acting import acting
from fanout.errors import UsageError

__all__ = ["app"]

app = typer.Typer(help="Users: erase, export.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _users() -> None:
    """The data held of one user."""


@app.command()
def erase(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    app: App = "default",
    config: Config = None,
    json: Json = False,
) -> None:
    """Forget a user everywhere: devices, feed, subscriptions, what is queued, and every trace in the history. It cannot
    be undone."""
    if not user:
        raise UsageError("USER is empty: name the user to be erased.")
    if not yes and not sys.stdin.isatty():
        raise UsageError("This would erase the user for good: repeat it with --yes.")
    if not yes and not typer.confirm(f"Erase {user} of the app {app}, for good?", err=True):
        say("Nothing was erased.")
        raise typer.Exit(1)

    async def command() -> int:
        async with parts(config, "users", app=app).engine(role="submit") as engine:
            with acting("shell"):
                count = await engine.erase_user(user, app=app)
        answer({"endpoints": count}, f"erased, with {count} endpoint{'' if count == 1 else 's'}", json=json)
        return 0

    run(command)


@app.command()
def export(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.", show_default=False)],
    app: App = "default",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Into this new file, which its owner alone can read.", show_default=False
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """All that is held of a user, as JSON lines: devices with addresses, subscriptions, feed, notifications, events. It
    is secret: an address is enough to push.

    Each line has a `kind`. The last is `end`: without it the export is not whole.
    """
    if not user:
        raise UsageError("USER is empty: name the user to be exported.")

    async def command() -> int:
        count = 0
        async with parts(config, "users", app=app).engine(role="submit") as engine:
            with acting("shell"), _written(out) as write:
                async for record in engine.export_user(user, app=app):
                    write(orjson.dumps(record) + b"\n")
                    count += 1
        if out is not None and json:
            emit({"file": str(out), "records": count})
        elif out is not None:
            typer.echo(f"exported {count} records to {out}")
        return 0

    run(command)


@contextmanager
def _written(out: Path | None) -> Iterator[Callable[[bytes], object]]:
    """A function that writes a line: to standard output, or to a new file, which is not left behind where it is not
    whole."""
    if out is None:
        yield sys.stdout.buffer.write
    else:
        with new_file(out) as stream:
            yield stream.write
