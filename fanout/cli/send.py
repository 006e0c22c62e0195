"""`fanout send`: accept a notification, and with --wait deliver it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import orjson
import typer

from fanout.cli.options import App, Config, Json, LogFormat
from fanout.cli.progress import Following
from fanout.cli.shell import answer, emit, execute, parts, run, say
from fanout.cli.status import show
from fanout.core.duration import parse_duration, parse_when
from fanout.core.model import DEFAULT_TTL, Lane, Notification, Target
from fanout.core.states import DeliveryState
from fanout.engine import Engine, Preview, Receipt
from fanout.errors import UsageError

__all__ = ["send"]

_FAILURES = (DeliveryState.REJECTED, DeliveryState.EXPIRED, DeliveryState.DEAD)


def send(
    to: Annotated[
        str,
        typer.Option("--to", metavar="TARGET", help="user:NAME, topic:NAME, endpoint:ID or all.", show_default=False),
    ],
    title: Annotated[str | None, typer.Option("--title", metavar="T", help="The first line that is shown.")] = None,
    body: Annotated[str | None, typer.Option("--body", metavar="B", help="The text that is shown.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="K=V", help="A text for the app, or K:=JSON for any value. May be repeated."),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option("--ttl", metavar="TIME", help="How long it is worth delivering, such as 1h (24h if not given)."),
    ] = None,
    lane: Annotated[str, typer.Option("--lane", metavar="LANE", help="urgent, normal or bulk.")] = "normal",
    collapse_key: Annotated[
        str | None, typer.Option("--collapse-key", metavar="K", help="A later one with this key replaces this one.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", metavar="K", help="Sending again with this key sends nothing new."),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="WHEN", help="When to deliver: an ISO 8601 time, or +1h30m from now.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Deliver here and now, and print each gateway's answer.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending to all.")] = False,
    app: App = "default",
    config: Config = None,
    json: Json = False,
    log_format: LogFormat = None,
) -> None:
    """Accept a notification durably and print its id. A worker (`fanout work`) delivers it, or --wait does."""
    target = Target.parse(to)
    notification = Notification(
        title=title,
        body=body,
        data=_data(data or ()),
        ttl=DEFAULT_TTL if ttl is None else _named("--ttl", parse_duration, ttl),
        lane=cast(Lane, lane),
        collapse_key=collapse_key,
    )
    due = None if at is None else _named("--at", lambda text: parse_when(text, time.time()), at)

    async def look() -> int:
        async with parts(config, "send").engine(role="submit") as engine:
            preview = await engine.preview(notification, target, app=app)
        if dry_run:
            _show_preview(preview, target, due, json=json)
        else:
            counted.append(preview.total)
        return 0

    async def command() -> int:
        following = Following(json=json)
        made = parts(config, "send", create=True)
        async with made.engine(role="both" if wait else "submit", hooks=[following] if wait else []) as engine:
            # "In ten minutes" counts by the database's clock, which is known by now.
            when = None if at is None else parse_when(at, made.clock.now())
            receipt = await engine.send(notification, target, app=app, at=when, idempotency_key=idempotency_key)
            _show_receipt(receipt, json=json)
            return await _follow(engine, receipt, following, json=json) if wait else 0

    counted: list[int] = []
    if dry_run:
        run(look, log_format=log_format)
    if target.kind == "all" and not yes:
        # Counted in a loop of its own: a loop that waits for an answer on the terminal would not hear Ctrl-C.
        if code := execute(look, log_format=log_format):
            raise typer.Exit(code)
        _confirm(counted[0], app)
    run(command, log_format=log_format)


def _data(pairs: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key in ("", ":"):
            raise UsageError(f"--data {pair!r} is no K=V: write --data order=17, or --data order:=17 for JSON.")
        if not key.endswith(":"):
            values[key] = value
            continue
        try:
            values[key[:-1]] = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"--data {key[:-1]}:= is followed by no JSON: {error.msg}.") from None
    return values


def _named(flag: str, parse: Any, text: str) -> float:
    try:
        value: float = parse(text)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from None
    return value


def _confirm(total: int, app: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            f"This would go to all {total:,} endpoints of the app {app}: repeat it with --yes, or look first with --dry-run."
        )
    if not typer.confirm(f"Send to all {total:,} endpoints of the app {app}?", err=True):
        say("Nothing was sent.")
        raise typer.Exit(1)


def _show_preview(preview: Preview, target: Target, due: float | None, *, json: bool) -> None:
    if json:
        emit(
            {
                "target": str(target),
                "endpoints": dict(preview.endpoints),
                "bytes": dict(preview.sizes),
                "total": preview.total,
                "rate": preview.rate,
                "eta_s": preview.eta_s,
                "due_at": due,
            }
        )
        return
    typer.echo(f"{target}: {preview.total:,} endpoints; nothing was sent")
    if due is not None:
        moment = datetime.fromtimestamp(due, UTC)
        typer.echo(f"  due {moment:%Y-%m-%d %H:%M:%S} UTC, which is {moment.astimezone():%Y-%m-%d %H:%M:%S %Z} here")
    for binding, count in preview.endpoints.items():
        typer.echo(f"  {binding}: {count:,} endpoints, {preview.sizes[binding]:,} bytes each")
    if preview.eta_s is not None and preview.rate is not None:
        typer.echo(f"  about {preview.eta_s:.1f} s at the {preview.rate:,.0f} deliveries/s measured last")


def _show_receipt(receipt: Receipt, *, json: bool) -> None:
    answer({"id": receipt.id, "total": receipt.total, "replayed": receipt.replayed}, receipt.id, json=json)
    if receipt.replayed:
        say("This idempotency key was used before: the id is the first one's, and nothing new was sent.")
    elif receipt.total == 0:
        say("The target has no active endpoint, so there is nothing to deliver.")


async def _follow(engine: Engine, receipt: Receipt, following: Following, *, json: bool) -> int:
    """Print each answer as it comes, those of other workers at the end, and then the final status."""
    following.follow(receipt.id)
    status = await receipt.wait()
    async for endpoint, state, reason in engine.deliveries(receipt.id):
        following.answered(endpoint, state, reason)
    show(status, json=json)
    return 1 if any(status.counts.get(state, 0) for state in _FAILURES) else 0
