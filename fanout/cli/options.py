"""The flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fanout.cli.logs import Format

__all__ = ["App", "Config", "Json", "LogFormat"]

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The configuration; otherwise FANOUT_CONFIG, otherwise ./fanout.toml."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output, everything else on standard error.")
]
App = Annotated[str, typer.Option("--app", metavar="APP", help="The app, where the configuration has several.")]
LogFormat = Annotated[
    Format | None,
    typer.Option(
        "--log-format",
        envvar="FANOUT_LOG_FORMAT",
        help="text, or json: one object a line on standard error. Other commands take it from the variable.",
        show_default=False,
    ),
]
