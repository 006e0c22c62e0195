"""`fanout init`: a few questions, then a configuration with its keys, and a first test push."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fanout.cli.doctor import examine
from fanout.cli.findings import show
from fanout.cli.init_answers import Answers, ask
from fanout.cli.init_files import Made, lay_out, write
from fanout.cli.init_push import first_push
from fanout.cli.key_files import configuration_file
from fanout.cli.options import App
from fanout.cli.shell import execute, quoted, say, this_program
from fanout.errors import FanoutError, UsageError
from fanout.registry import Registry

__all__ = ["init"]


def init(
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", metavar="S", help="Where the queue is: sqlite:FILE or postgresql://…", show_default=False
        ),
    ] = None,
    transport: Annotated[
        list[str] | None,
        typer.Option("--transport", metavar="T", help="A platform to push to, such as webpush. May be repeated."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="T.KEY=VALUE", help="A setting of one of them. May be repeated."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="T=ADDRESS",
            help="A device that gets the first test push; without one, gateways are simulated for it.",
        ),
    ] = None,
    push: Annotated[bool, typer.Option("--push/--no-push", help="Whether a first test push is made.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: take the defaults.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are there; each is kept as NAME.1, NAME.2 …")
    ] = False,
    app: App = "default",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="The file to write; otherwise FANOUT_CONFIG, otherwise ./fanout.toml."
        ),
    ] = None,
) -> None:
    """Ask a few questions, write a commented configuration and its keys, and make a first test push.

    Nothing is overwritten without --force. Keys and other secrets are put into files that only you can read.
    """
    file = configuration_file(config)
    if file.exists() and not force:
        raise UsageError(
            f"{file} exists already: --force replaces it and keeps it as {file.name}.1, --config names another file."
        )
    registry = Registry()
    answers = ask(
        registry,
        app,
        file.parent,
        storage=storage,
        transports=transport or (),
        given=given or (),
        devices=device or (),
        questions=not yes,
        push=push,
    )
    made = lay_out(registry, answers, file)
    for old, kept in write(made, force=force):
        say(f"{old} was there, and is {kept} now.")
    _tell(made)
    code = execute(lambda: _prove(file, registry))
    if code == 0 and push:
        try:
            code = execute(lambda: first_push(registry, answers, file))
        except FanoutError as error:
            say(f"The first test push failed: {error}", level="error")
            code = 1
    _next(made, answers)
    raise typer.Exit(code)


async def _prove(file: Path, registry: Registry) -> int:
    """The findings of `fanout doctor` about the files, without asking a gateway."""
    worst = 0
    async for finding in examine(file, registry, beside=True):
        if finding.problem or (finding.warning and not finding.kind.endswith("plugin")):
            show(finding, json=False)
        worst = max(worst, finding.code)
    return worst


def _tell(made: Made) -> None:
    typer.echo(f"Written: {made.file}, and secrets that only you can read:")
    for path, what in made.notes:
        typer.echo(f"  {path}  {what}")


def _next(made: Made, answers: Answers) -> None:
    here = made.file == Path("fanout.toml").absolute()
    flags: Sequence[str] = () if here else ("--config", str(made.file))
    binding = next(iter(answers.bindings), "BINDING")
    apps = () if answers.app == "default" else ("--app", answers.app)
    typer.echo("\nNext:")
    for words, what in (
        (["doctor"], "proves the credentials to the gateways"),
        (["serve"], "the REST service, and deliveries (or `fanout work`: deliveries alone)"),
        (["endpoints", "add", "--user", "alice", "--transport", binding, *apps, "ADDRESS"], "a device"),
        (["send", "--to", "user:alice", "--title", "Hello", *apps, "--wait"], "a push"),
    ):
        typer.echo(f"  {quoted([*this_program(), *words, *flags])}    # {what}")
