"""`fanout pause`: hold one notification, or everything of one binding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fanout.cli.options import Config, Json
from fanout.cli.shell import answer, parts, run
from fanout.cli.status import show
from fanout.engine.acting import act_as
from fanout.errors import UsageError

__all__ = ["AppOfBinding", "Binding", "OptionalId", "pause", "switch"]

OptionalId = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="The id that `send` printed.", show_default=False)
]
Binding = Annotated[
    str | None, typer.Option("--binding", metavar="B", help="Everything of this binding.", show_default=False)
]
AppOfBinding = Annotated[
    str | None, typer.Option("--app", metavar="APP", help="The binding's app, where the configuration has several.")
]


def pause(
    id: OptionalId = None, binding: Binding = None, app: AppOfBinding = None, config: Config = None, json: Json = False
) -> None:
    """Send nothing more of a notification, or of a binding, until `resume`. Its time to live runs on.

    When it returns, only what was on its way already can still arrive.
    """
    switch("pause", id, binding, app, config, json=json)


def switch(
    verb: Literal["pause", "resume"],
    id: str | None,
    binding: str | None,
    app: str | None,
    config: Path | None,
    *,
    json: bool,
) -> None:
    """Pause, or resume, the notification of ID or the binding of the flags. Raises `UsageError`."""
    owner = _chosen_app(id, binding, app)
    paused = verb == "pause"

    async def command() -> int:
        of = owner if binding is not None else None
        async with parts(config, verb, app=of, binding=binding).engine(role="submit") as engine:
            act_as("shell")
            if id is not None:
                show(await (engine.pause if paused else engine.resume)(id), json=json)
            elif binding is not None:
                await (engine.pause_binding if paused else engine.resume_binding)(binding, app=owner)
                answer(
                    {"app": owner, "binding": binding, "paused": paused},
                    f"{owner}/{binding} {'is paused' if paused else 'goes on'}.",
                    json=json,
                )
        return 0

    run(command)


def _chosen_app(id: str | None, binding: str | None, app: str | None) -> str:
    """The app, where ID and the flags name one thing. Raises `UsageError`."""
    if (id is None) == (binding is None):
        raise UsageError("Name one thing: the ID of a notification, or --binding B.")
    if id is not None and app is not None:
        raise UsageError("--app goes with --binding; an ID needs none.")
    return "default" if app is None else app
