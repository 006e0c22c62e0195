"""`fanout explain`: every decision about one delivery, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from fanout.cli.options import Config, Json
from fanout.cli.shell import emit, parts, run
from fanout.cli.status import MEANING, Id, when
from fanout.core.records import Step
from fanout.core.states import Waiting

__all__ = ["explain"]

_TWICE = (
    "A worker was lost with it in hand, so it may have been sent twice: after a crash the deliveries in flight, and those of "
    "one checkpoint; after a loss of the database, those of one checkpoint and a second more."
)


def explain(
    id: Id,
    endpoint: Annotated[
        int, typer.Option("--endpoint", metavar="E", help="The endpoint's id, as `endpoints list` shows it.")
    ],
    config: Config = None,
    json: Json = False,
) -> None:
    """Every decision about one delivery, oldest first, and its waiting reason."""

    async def command() -> int:
        async with parts(config, "explain").engine(role="submit") as engine:
            steps = await engine.explain(id, endpoint)
        for step in steps:
            if json:
                emit({"id": id, "endpoint": endpoint, **asdict(step)})
        if not json:
            for line in _lines(steps):
                typer.echo(line)
        return 0

    run(command)


def _lines(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        yield f"{_moment(step.at)}  {step.what:<10}  {_detail(step)}".rstrip()
    if any(step.what == "taken over" for step in steps):
        yield _TWICE
    if waiting := _waiting(steps):
        yield f"Waits as {waiting}: {MEANING[waiting]}."


def _waiting(steps: Sequence[Step]) -> str:
    """The delivery's present reason for waiting, as far as the steps say: a pause that was not lifted comes before all
    else."""
    if not steps or steps[-1].what == "ended":
        return ""
    holds = [step.what for step in steps if step.what in ("paused", "resumed")]
    if holds[-1:] == ["paused"]:
        return Waiting.PAUSED.value
    return steps[-1].waiting if steps[-1].waiting in MEANING else ""


def _detail(step: Step) -> str:
    parts = [
        f"attempt {step.attempt}" if step.attempt else "",
        step.state,
        f"{step.waiting} until {when(step.until)}" if step.waiting and step.until else step.waiting,
        step.reason,
        f"by {step.worker}" if step.worker else "",
    ]
    return ", ".join(part for part in parts if part)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
