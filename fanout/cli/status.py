"""`fanout status`: how things stand with one notification."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from fanout.cli.options import Config, Json
from fanout.cli.shell import emit, parts, run
from fanout.core.records import Status
from fanout.core.report import status_report
from fanout.core.states import FINAL_STATES

__all__ = ["describe", "show", "status"]

Id = Annotated[str, typer.Argument(metavar="ID", help="The id that `send` printed.", show_default=False)]


def status(id: Id, config: Config = None, json: Json = False) -> None:
    """How things stand with a notification."""

    async def command() -> int:
        async with parts(config, "status").engine(role="submit") as engine:
            show(await engine.status(id), json=json)
        return 0

    run(command)


def show(found: Status, *, json: bool) -> None:
    """Print a status in the form that was asked for."""
    if json:
        emit(status_report(found, time.time()))
    else:
        typer.echo(describe(found))


def describe(found: Status) -> str:
    """A status in lines for people."""
    report = status_report(found, time.time())
    total = "expanding" if found.total is None else f"{found.total:,}"
    lines = [f"{found.id}  {report['state']}", f"  deliveries  {total}"]
    for state in ("pending", *FINAL_STATES):
        if count := report["counts"][state]:
            reasons = report["pending_by_reason"] if state == "pending" else found.reasons.get(state, {})
            detail = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()) if reason)
            lines.append(f"  {state:<11} {count:,}" + (f"  ({detail})" if detail else ""))
    lines.append(f"  attempts    {found.attempts:,}")
    for name, moment in (
        ("accepted_at", found.accepted_at),
        ("due_at", found.due_at if found.due_at > found.accepted_at else None),
        ("finished_at", found.finished_at),
        ("expires_at", found.expires_at if found.finished_at is None else None),
    ):
        if moment is not None:
            lines.append(f"  {name:<11} {datetime.fromtimestamp(moment, UTC).isoformat(timespec='seconds')}")
    if found.finished_at is None and report["eta_s"] is not None:
        lines.append(f"  eta         {report['eta_s']:g} s")
    return "\n".join(lines)
