"""The flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["App", "Config", "Json"]

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
