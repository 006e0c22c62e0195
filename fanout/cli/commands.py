"""The commands together, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fanout.cli import (
    audit,
    cancel,
    demo,
    doctor,
    endpoints,
    explain,
    init,
    keys,
    pause,
    resume,
    send,
    serve,
    status,
    users,
    work,
)
from fanout.cli.shell import say
from fanout.errors import ConfigurationError, FanoutError, PluginError, UsageError

__all__ = ["app", "main"]

DONE, FAILED, USAGE = 0, 1, 2

app = typer.Typer(
    name="fanout",
    help="Push delivery: tell Alice, and every device she has gets it.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text: in rich's markup "[service]" would be a style, and each flag has a type <bool>.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(init.init)
app.command()(serve.serve)
app.command()(work.work)
app.command()(send.send)
app.command()(status.status)
app.command()(explain.explain)
app.command()(pause.pause)
app.command()(resume.resume)
app.command()(cancel.cancel)
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(users.app, name="users")
app.command()(audit.audit)
app.command()(doctor.doctor)
app.command()(keys.keys)


def _version(wanted: bool) -> None:
    if wanted:
        import fanout

        typer.echo(fanout.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Push delivery: tell Alice, and every device she has gets it."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage or configuration."""
    sys.exit(_run())


def _run() -> int:
    try:
        app()
    except SystemExit as ended:
        return _flushed(ended.code if isinstance(ended.code, int) else FAILED)
    except (UsageError, ConfigurationError, PluginError) as error:
        say(f"fanout: {error}", level="error")
        return USAGE
    except FanoutError as error:
        say(f"fanout: {error}", level="error")
        return FAILED
    except BrokenPipeError:
        return _hush()
    except KeyboardInterrupt:
        say("fanout: interrupted.")
        return FAILED
    return _flushed(DONE)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _hush()
    return code


def _hush() -> int:
    """The reader of our output has gone (`| head`): nothing is wrong, and nothing more can be said."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
