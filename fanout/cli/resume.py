"""`fanout resume`: let what was paused go on, and try a binding again at once."""

from __future__ import annotations

import typer

from fanout.cli.options import Config, Json
from fanout.cli.pause import AppOfBinding, Binding, OptionalId, chosen_app
from fanout.cli.shell import emit, parts, run
from fanout.cli.status import show
from fanout.engine.acting import act_as

__all__ = ["resume"]


def resume(
    id: OptionalId = None,
    binding: Binding = None,
    app: AppOfBinding = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Let a paused notification or binding go on. A binding is tried at once, its closed gates and a repaired credential too."""
    owner = chosen_app(id, binding, app)

    async def command() -> int:
        of = owner if binding is not None else None
        async with parts(config, "resume", app=of, binding=binding).engine(role="submit") as engine:
            act_as("shell")
            if id is not None:
                show(await engine.resume(id), json=json)
            elif binding is not None:
                await engine.resume_binding(binding, app=owner)
                if json:
                    emit({"app": owner, "binding": binding, "paused": False})
                else:
                    typer.echo(f"{owner}/{binding} goes on.")
        return 0

    run(command)
