"""The findings of `fanout doctor`, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from fanout.cli.shell import emit

__all__ = ["Finding", "show"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and at most one thing that is wrong with it.

    `code` is its part of the exit code: 0, 1, or 2 where the configuration is wrong. `line` is where the fault stands
    in the configuration's file, as far as it stands there.
    """

    kind: str
    name: str
    problem: str = ""
    detail: str = ""
    code: int = 0
    extra: Mapping[str, Any] | None = None
    warning: str = ""
    line: int | None = None


def show(finding: Finding, *, json: bool) -> None:
    if json:
        values: dict[str, Any] = {"kind": finding.kind, "name": finding.name, "ok": not finding.problem}
        said = {"problem": finding.problem, "detail": finding.detail, "warning": finding.warning}
        emit(values | said | {"line": finding.line} | dict(finding.extra or {}))
        return
    mark = "wrong" if finding.problem else "warn" if finding.warning else "ok"
    line = f"{mark:<6} {finding.kind:<16} {finding.name}" + (f"  line {finding.line}" if finding.line else "")
    typer.echo(f"{line}  {finding.detail}" if finding.detail else line)
    if finding.problem:
        typer.echo(f"       {finding.problem}")
    if finding.warning:
        typer.echo(f"       {finding.warning}")
