"""`fanout status`: how things stand with one notification, or with everything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fanout.cli.options import Config, Json
from fanout.cli.shell import emit, parts, run, say
from fanout.cli.workers import show_workers
from fanout.core.outcome import Scope
from fanout.core.records import Backlog, GateNote, Status
from fanout.core.report import status_report
from fanout.core.states import FINAL_STATES, Waiting
from fanout.engine import Engine
from fanout.errors import StorageError, UsageError

__all__ = ["MEANING", "Id", "describe", "show", "status", "when"]

Id = Annotated[str, typer.Argument(metavar="ID", help="The id that `send` printed.", show_default=False)]

MEANING: Mapping[str, str] = {
    Waiting.READY: "a worker has it",
    Waiting.SCHEDULED: "not due yet",
    Waiting.BACKOFF: "the gateway put off this endpoint; tried again by itself",
    Waiting.GATE: "the gateway throttles or fails as a whole; probed, and goes on by itself",
    Waiting.BREAKER: "a credential, topic or project is wrong: mend it (`fanout doctor`), then `fanout resume --binding B`",
    Waiting.BUDGET: "too many retries for what succeeds; goes on by itself as successes come",
    Waiting.QUOTA: "the gateway's quota is used up; goes on by itself when it is renewed",
    Waiting.LIMITER: "the gateway has become slow, so fewer are under way; goes on by itself",
    Waiting.PAUSED: "an operator paused it: `fanout resume ID`, or `fanout resume --binding B`",
    Waiting.LANE: "due, and waits for its turn; if the number does not fall, no worker runs: `fanout work`",
}
"""The meaning of each reason for waiting, and the remedy."""

_LEASED = "leased"
_OF_A_GATE = ("binding", "scope", "name", "waiting", "reason", "until", "worker")
_PROMPT = 1.0
"""Seconds for which `status` asks whether anything can be stored."""


def status(
    id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The id that `send` printed; without it, everything.", show_default=False),
    ] = None,
    workers: Annotated[
        bool, typer.Option("--workers", help="The workers that share the database, and the leases of each.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """How things stand with a notification; without ID, what waits in all, which gates are closed and what is
    paused."""
    if workers and id is not None:
        raise UsageError("Name one thing: an ID, or --workers.")

    async def command() -> int:
        async with parts(config, "status").engine(role="submit") as engine:
            if workers:
                show_workers(await engine.workers(), time.time(), json=json)
                return 0
            if id is None:
                await _overview(engine, json=json)
                return 0
            found = await engine.status(id)
            show(found, json=json, shortened=await engine.reads.shortened(id))
            if found.counts.get("pending") and (problem := await unstorable(engine.reads.probe)):
                say(f"fanout: {problem}", level="warning")
            if not json and found.counts.get("pending"):
                _echo(_gate_lines(gate for gate in await engine.gates() if gate.app == found.app))
        return 0

    run(command)


def show(found: Status, *, json: bool, shortened: Sequence[str] = ()) -> None:
    """Print a status in the form that was asked for. `shortened` are the bindings whose gateways take it with less
    text."""
    if json:
        more = {"refused": refused(found), "shortened": list(shortened)}
        emit(status_report(found, time.time()) | {name: value for name, value in more.items() if value})
    else:
        typer.echo(describe(found))
        if shortened:
            typer.echo(f"  shortened   {', '.join(shortened)}")


def refused(found: Status) -> str:
    """Why a notification enqueued in another program's transaction came to nothing; empty for all others."""
    return next((reason for reason, n in found.reasons.get(found.state, {}).items() if not n), "")


def describe(found: Status) -> str:
    """A status in lines for people."""
    report = status_report(found, time.time())
    total = "expanding" if found.total is None else f"{found.total:,}"
    lines = [f"{found.id}  {report['state']}", f"  deliveries  {total}"]
    for state in ("pending", *FINAL_STATES):
        if count := report["counts"][state]:
            if state == "pending":
                lines += [f"  {state:<11} {count:,}", *_waiting_lines(report["pending_by_reason"], "    ")]
                continue
            reasons = found.reasons.get(state, {})
            detail = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()) if reason)
            lines.append(f"  {state:<11} {count:,}" + (f"  ({detail})" if detail else ""))
    if reason := refused(found):
        lines.append(f"  refused     {reason}")
    lines.append(f"  attempts    {found.attempts:,}")
    for name, moment in (
        ("accepted_at", found.accepted_at),
        ("due_at", found.due_at if found.due_at > found.accepted_at else None),
        ("finished_at", found.finished_at),
        ("expires_at", found.expires_at if found.finished_at is None else None),
    ):
        if moment is not None:
            lines.append(f"  {name:<11} {when(moment)}")
    if found.finished_at is None and report["eta_s"] is not None:
        lines.append(f"  eta         {report['eta_s']:g} s")
    return "\n".join(lines)


async def _overview(engine: Engine, *, json: bool) -> None:
    """The waiting deliveries of each app, the gates that are closed in any process, and the pauses."""
    problem = await unstorable(engine.reads.probe)
    gates = await engine.gates()
    controls = await engine.reads.controls()
    for app in engine.apps:
        waiting = {reason: n for reason, n in (await engine.reads.outstanding(app)).items() if n}
        backlog = await engine.reads.backlog(app)
        closed = [gate for gate in gates if gate.app == app]
        paused = sorted(binding for (owner, binding), control in controls.items() if owner == app and control.paused)
        if json:
            emit(_report(app, waiting, backlog, closed, paused) | {"storage": problem or "ok"})
            continue
        age = "" if backlog.oldest_at is None else f", the oldest due for {_long(time.time() - backlog.oldest_at)}"
        _echo(
            [
                f"{app}  {sum(waiting.values()):,} waiting{age}",
                *_waiting_lines(waiting, "  "),
                *_gate_lines(closed),
                *(f"  paused      {binding}" for binding in paused),
            ]
        )
    if problem and not json:
        _echo([f"storage  {problem}"])


async def unstorable(probe: Callable[[], Awaitable[None]]) -> str:
    """Why nothing can be stored at present, though it can be read; empty where it can. Within a second."""
    try:
        async with asyncio.timeout(_PROMPT):
            await probe()
    except TimeoutError:
        return "Nothing can be stored at present: another program keeps the database locked, or it does not answer. See which, and end it."
    except StorageError as error:
        return str(error)
    return ""


def _report(
    app: str, waiting: Mapping[str, int], backlog: Backlog, gates: Sequence[GateNote], paused: Sequence[str]
) -> dict[str, Any]:
    return {
        "app": app,
        "waiting": dict(waiting),
        "backlog": {"deliveries": backlog.deliveries, "bytes": backlog.bytes, "oldest_at": backlog.oldest_at},
        "gates": [{name: getattr(gate, name) for name in _OF_A_GATE} for gate in gates],
        "paused": list(paused),
    }


def _waiting_lines(waiting: Mapping[str, int], indent: str) -> Iterator[str]:
    for reason, count in sorted(waiting.items()):
        meaning = MEANING[Waiting.READY] if reason == _LEASED else MEANING.get(reason, "")
        yield f"{indent}{reason:<11} {count:,}  {meaning}".rstrip()


def _gate_lines(gates: Iterable[GateNote]) -> Iterator[str]:
    for gate in gates:
        what = f"{gate.binding}, {gate.scope}" + (f" {gate.name}" if gate.name else "")
        until = f" until {when(gate.until)}" if gate.until else ""
        yield f"  closed      {what}: {gate.waiting}{until}" + (f" ({gate.reason})" if gate.reason else "")
        if opens := _opens(gate):
            yield f"              {opens}"


def _opens(gate: GateNote) -> str:
    """The event that would open a gate, as far as it is not a time alone."""
    if gate.scope == Scope.ENDPOINT:
        return f"this endpoint alone says so and waits alone; asked again then, or at `fanout resume --binding {gate.binding}`"
    if gate.waiting == Waiting.BREAKER:
        return f"opens when a delivery that is let through is accepted; tried at once by `fanout resume --binding {gate.binding}`"
    if gate.waiting == Waiting.GATE:
        return "opens when a delivery that is let through then is accepted"
    return ""


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


def when(moment: float) -> str:
    """A time as people read it here: ISO 8601 in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _long(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
