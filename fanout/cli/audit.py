"""`fanout audit`: the audit log."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from fanout.cli.options import Config, Json
from fanout.cli.shell import emit, parts, run
from fanout.cli.status import when
from fanout.core.audit import AUDIT
from fanout.core.duration import parse_duration

__all__ = ["audit"]


def audit(
    app: Annotated[str | None, typer.Option("--app", metavar="APP", help="Only of this app.")] = None,
    kind: Annotated[
        str, typer.Option("--kind", metavar="K", help="Only kinds that begin so, such as user.erased.")
    ] = "",
    since: Annotated[str, typer.Option("--since", metavar="AGO", help="Only of the last so long, such as 24h.")] = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """The audit log: users erased, keys made, bindings and notifications stopped. Users stand in it as hashes."""
    begin = time.time() - parse_duration(since) if since else 0.0
    wanted = AUDIT + kind.removeprefix(AUDIT)

    async def command() -> int:
        async with parts(config, "audit", app=app).engine(role="submit") as engine:
            async for line in engine.reads.audit_lines(app, wanted, begin):
                if json:
                    emit({"id": line.id, "at": line.at, "app": line.app, "kind": line.kind, "data": dict(line.data)})
                else:
                    about = " ".join(f"{name}={value}" for name, value in line.data.items())
                    typer.echo(f"{when(line.at)}  {line.app}  {line.kind}  {about}")
        return 0

    run(command)
