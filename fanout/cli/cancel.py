"""`fanout cancel`: stop the deliveries that have not been sent."""

from __future__ import annotations

from fanout.cli.options import Config, Json
from fanout.cli.shell import parts, run
from fanout.cli.status import Id, show
from fanout.engine.acting import act_as

__all__ = ["cancel"]


def cancel(id: Id, config: Config = None, json: Json = False) -> None:
    """Stop what has not been sent, and print how things stand then."""

    async def command() -> int:
        async with parts(config, "cancel").engine(role="submit") as engine:
            act_as("shell")
            show(await engine.cancel(id), json=json)
        return 0

    run(command)
