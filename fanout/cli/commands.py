"""The commands together, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from fanout.cli import early
from fanout.cli.lazy import lazy_group
from fanout.errors import ConfigurationError, FanoutError, PluginError, UsageError

__all__ = ["app", "main"]

DONE, FAILED, USAGE = 0, 1, 2

COMMANDS = {
    "demo": "Try it without an account: every gateway simulated and a broadcast to all, or with --browser a real push.",
    "init": "Ask a few questions, write a commented configuration and its keys, and make a first test push.",
    "serve": "Serve the REST API and deliver, until Ctrl-C or SIGTERM: requests under way are answered, and answers of gateways stored.",
    "work": "Deliver what is queued, until Ctrl-C or SIGTERM; answers under way are awaited and stored before it ends.",
    "send": "Accept a notification durably and print its id.",
    "status": "How things stand with a notification; without ID, what waits in all, which gates are closed and what is paused.",
    "explain": "Every decision about one delivery, oldest first, and its waiting reason.",
    "pause": "Send nothing more of a notification, or of a binding, until `resume`.",
    "resume": "Let a paused notification or binding go on.",
    "cancel": "Stop what has not been sent, and print how things stand then.",
    "audit": "The audit log: users erased, keys made, bindings and notifications stopped.",
    "doctor": "Check every plugin, credential and database.",
    "keys": "Make a new key, and print what belongs to the clients and the lines for the configuration.",
    "endpoints": "Device endpoints: add, import, list, show, remove, restore, seal.",
    "users": "Users: erase, export.",
}
"""Each command, which is in the module of its name, and the first sentence of its help."""

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    name="fanout",
    help="Push delivery: tell Alice, and every device she has gets it.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text: in rich's markup "[service]" would be a style, and each flag has a type <bool>.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


def _say(text: str, **how: str) -> None:
    from fanout.cli.shell import say  # which imports the engine

    say(text, **how)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage or configuration."""
    sys.exit(_run())


def _run() -> int:
    try:
        app()
    except SystemExit as ended:
        # Typer's own for Ctrl-C, 130, is none of ours.
        return _flushed(ended.code if isinstance(ended.code, int) and ended.code in (DONE, USAGE) else FAILED)
    except FanoutError as error:
        _say(" ".join([f"fanout: {error}", *([early.LOCALE] if early.bytes_kept(sys.argv) else [])]), level="error")
        return USAGE if isinstance(error, (UsageError, ConfigurationError, PluginError)) else FAILED
    except OSError as error:
        return _hush(error)
    except KeyboardInterrupt:
        _say("fanout: interrupted.")
        return FAILED
    return _flushed(DONE)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return _hush(error)
    return code


def _hush(error: OSError) -> int:
    """Nothing more can be printed. Nothing is wrong where the reader of our output has gone (`| head`)."""
    if not isinstance(error, BrokenPipeError):
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise error
        _say(f"fanout: Its output cannot be written ({error.strerror}); its work until then stands.", level="error")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
