"""`fanout endpoints`: the directory from the shell. Addresses go in and are never shown."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer

from fanout.cli.lines import file_size, read_lines
from fanout.cli.options import App, Config, Json
from fanout.cli.progress import Meter
from fanout.cli.sealing import seal
from fanout.cli.shell import answer, emit, parts, run, say, table
from fanout.cli.status import when
from fanout.core.columns import AS_STORED, shown
from fanout.core.endpoint import Endpoint, EndpointState
from fanout.engine.directory import ImportReport
from fanout.errors import UsageError

__all__ = ["app"]

app = typer.Typer(
    help="Device endpoints: add, import, list, show, remove, restore, seal.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(seal)

_HEADS = ("id", "user", "transport", "platform", "state", "registered", "tags")

Ids = Annotated[
    list[int], typer.Argument(metavar="ID...", help="Endpoint ids, as `list` shows them.", show_default=False)
]


@app.command()
def add(
    address: Annotated[
        str,
        typer.Argument(metavar="ADDRESS", help="The platform's address of the client; - reads it from standard input."),
    ],
    user: Annotated[str, typer.Option("--user", metavar="U", help="The device's user.", show_default=False)],
    transport: Annotated[str, typer.Option("--transport", metavar="B", help="The binding.", show_default=False)],
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="T", help="A topic. May be repeated.")] = None,
    platform: Annotated[str, typer.Option("--platform", metavar="P", help="Such as ios.")] = "",
    app: App = "default",
    config: Config = None,
    json: Json = False,
) -> None:
    """Register one device for a user."""
    if address == "-":
        address = sys.stdin.read(65_537).strip()
    raw: Any = address
    if address.startswith("{"):
        try:
            raw = orjson.loads(address)
        except orjson.JSONDecodeError as error:
            raise UsageError(
                f"ADDRESS begins like JSON and is none: {error.msg}. Write it between single quotes, unchanged."
            ) from None

    async def command() -> int:
        made = parts(config, "endpoints", create=True, app=app, binding=transport)
        async with made.engine(role="submit") as engine:
            endpoint = await engine.endpoints.register(
                user=user, binding=transport, address=raw, app=app, platform=platform, tags=tag or ()
            )
        answer(_report(endpoint), endpoint.id, json=json)
        return 0

    run(command)


@app.command("import")
def import_(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="NDJSON, one endpoint a line; - reads standard input.", show_default=False),
    ],
    config: Config = None,
    json: Json = False,
) -> None:
    """Register devices by the million: good lines are stored although others are bad. Ends with 1 if any was bad.

    A line is {"user": …, "transport": …, "address": …, "tags": […], "app": …}; the last two may be left out.
    """

    async def command() -> int:
        async with parts(config, "endpoints", create=True).engine(role="submit") as engine:
            with Meter("importing", total=file_size(file)) as meter:

                def progress(report: ImportReport) -> None:
                    meter.show(f"{report.imported:,} imported, {report.bad:,} bad")

                report = await engine.endpoints.import_(read_lines(file, meter.advance), on_progress=progress)
        for line, sentence in report.errors:
            say(f"line {line}: {sentence}")
        if report.bad > len(report.errors):
            say(f"{report.bad - len(report.errors):,} more bad lines are not listed.")
        if json:
            errors = [{"line": line, "error": sentence} for line, sentence in report.errors]
            emit({"imported": report.imported, "bad": report.bad, "errors": errors})
        else:
            typer.echo(f"{report.imported:,} imported, {report.bad:,} bad")
        return 1 if report.bad else 0

    run(command)


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option("--user", metavar="U", help="Only this user's.")] = None,
    transport: Annotated[str | None, typer.Option("--transport", metavar="B", help="Only this binding's.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", metavar="T", help="Only those with this tag.")] = None,
    state: Annotated[
        str, typer.Option("--state", metavar="S", help="active, gone, replaced, removed, expired, or any.")
    ] = "active",
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many; 0 for all.", min=0)] = 100,
    app: App = "default",
    config: Config = None,
    json: Json = False,
) -> None:
    """Endpoints by id, without their addresses."""
    if state not in ("any", *EndpointState):
        raise UsageError(f"--state {state!r} is no state: use {', '.join(EndpointState)} or any.")
    chosen = None if state == "any" else EndpointState(state)

    async def command() -> int:
        rows: list[list[object]] = []
        count = 0
        more = False
        async with parts(config, "endpoints", app=app).engine(role="submit") as engine:
            async for endpoint in engine.endpoints.list(app=app, user=user, binding=transport, tag=tag, state=chosen):
                if limit and count == limit:
                    more = True
                    break
                count += 1
                if json:
                    emit(_report(endpoint))
                else:
                    rows.append(_row(endpoint))
                if len(rows) == 1000:
                    typer.echo(table(rows, _HEADS))
                    rows.clear()
        if rows:
            typer.echo(table(rows, _HEADS))
        if not count:
            say("No endpoint matches.")
        if more:
            say(f"There are more than {limit:,}: --limit 0 lists all.")
        return 0

    run(command)


@app.command()
def show(
    id: Annotated[int, typer.Argument(metavar="ID", help="The endpoint's id.", show_default=False)],
    app: App = "default",
    config: Config = None,
    json: Json = False,
) -> None:
    """One endpoint in whatever state, without its address."""

    async def command() -> int:
        async with parts(config, "endpoints", app=app).engine(role="submit") as engine:
            endpoint = await engine.endpoints.get(id, app=app)
        report = _report(endpoint)
        if json:
            emit(report)
            return 0
        for key, value in report.items():
            if value not in (None, "", []):
                shown = when(value) if key.endswith("_at") else ", ".join(value) if key == "tags" else value
                typer.echo(f"{key:<14} {shown}")
        return 0

    run(command)


@app.command()
def remove(ids: Ids, app: App = "default", config: Config = None, json: Json = False) -> None:
    """Take endpoints out of the directory. Deliveries queued for them end as cancelled; `restore` puts the endpoints
    back."""
    _change("removed", ids, app, config, json)


@app.command()
def restore(ids: Ids, app: App = "default", config: Config = None, json: Json = False) -> None:
    """Put gone, removed or expired endpoints back, as long as they are in quarantine (30 days)."""
    _change("restored", ids, app, config, json)


def _change(done: str, ids: list[int], app: str, config: Config, json: bool) -> None:
    async def command() -> int:
        async with parts(config, "endpoints", app=app).engine(role="submit") as engine:
            change = engine.endpoints.remove if done == "removed" else engine.endpoints.restore
            count = await change(ids, app=app)
        asked = len(set(ids))
        answer({done: count, "asked": asked}, f"{count:,} of {asked:,} {done}", json=json)
        if count < asked:
            say(f"The others are unknown to the app {app}, or in a state from which they cannot be {done}.")
        return 0 if count == asked else 1

    run(command)


def _report(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "app": endpoint.app,
        "user": endpoint.user,
        "transport": endpoint.binding,
        "kind": endpoint.address.kind,
        "group": endpoint.address.group,
        **shown(endpoint),
        "tags": list(endpoint.tags),
        "state": str(endpoint.state),
        **{name: getattr(endpoint, name) for name in AS_STORED},
    }


def _row(endpoint: Endpoint) -> list[object]:
    return [
        endpoint.id,
        endpoint.user or "-",
        endpoint.binding,
        endpoint.platform or "-",
        f"{endpoint.state} ({endpoint.reason})" if endpoint.reason else endpoint.state,
        when(endpoint.registered_at),
        ",".join(endpoint.tags) or "-",
    ]
