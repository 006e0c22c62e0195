"""`fanout status --workers`: the workers that share this database, and the leases of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

from fanout.cli.shell import emit
from fanout.core.fleet import WorkerNote, outlived

__all__ = ["show_workers"]

_HEAD = ("HOST", "PID", "VERSION", "SINCE", "LAST SEEN", "LEASES", "BINDINGS")


def show_workers(found: Sequence[WorkerNote], now: float, *, json: bool) -> None:
    """One JSON object a worker, or a table. `now` in UNIX seconds."""
    if json:
        for worker in found:
            emit(_report(worker, now))
    elif not found:
        typer.echo("No worker shares this database: `fanout work` starts one.")
    else:
        for line in _table([_HEAD, *(_row(worker, now) for worker in sorted(found, key=_sort_key))]):
            typer.echo(line)


def _report(worker: WorkerNote, now: float) -> dict[str, Any]:
    return {
        "worker": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "alive": _alive(worker, now),
        "started_at": worker.started_at,
        "seen_at": worker.seen_at,
        "alive_until": worker.until,
        "leases": worker.leases,
        "bindings": list(worker.bindings),
    }


def _row(worker: WorkerNote, now: float) -> tuple[str, ...]:
    seen = f"{max(0.0, now - worker.seen_at):.0f} s ago"
    since = datetime.fromtimestamp(worker.started_at, UTC).isoformat(timespec="seconds")
    return (
        worker.host,
        str(worker.pid),
        worker.version,
        since,
        seen if _alive(worker, now) else f"{seen}: lost",
        f"{worker.leases:,}",
        ", ".join(worker.bindings),
    )


def _sort_key(worker: WorkerNote) -> tuple[str, float, int]:
    return worker.host, worker.started_at, worker.pid


def _alive(worker: WorkerNote, now: float) -> bool:
    return not outlived(worker.seen_at, worker.until, now)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
