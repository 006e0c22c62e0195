"""`fanout users`: what is held of one user."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fanout.cli.options import App, Config, Json
from fanout.cli.shell import emit, parts, run, say
from fanout.engine.acting import acting
from fanout.errors import UsageError

__all__ = ["app"]

app = typer.Typer(help="Users: erase.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _users() -> None:
    """What is held of one user."""


@app.command()
def erase(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    app: App = "default",
    config: Config = None,
    json: Json = False,
) -> None:
    """Forget a user everywhere: devices, feed, subscriptions, what is queued, and every trace in the history. It cannot be undone."""
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
        if json:
            emit({"endpoints": count})
        else:
            typer.echo(f"erased, with {count} endpoint{'' if count == 1 else 's'}")
        return 0

    run(command)
