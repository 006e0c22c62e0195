"""Where a demo leaves its database and configuration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanout.cli.gateways import toml
from fanout.errors import UsageError

__all__ = ["clear", "write_config", "write_private"]

_MARK = "# Made by `fanout demo`; the next one replaces it.\n"
_CONFIG = "fanout.toml"


def clear(folder: Path) -> None:
    """An empty folder, where there was none or an earlier demo's. Raises `UsageError` rather than touch anything
    else."""
    config = folder / _CONFIG
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (config.is_file() and config.read_text(encoding="utf-8").startswith(_MARK)):
                raise UsageError(f"--folder {folder} holds something that is no earlier demo: name another folder.")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--folder {folder} cannot be used ({error.strerror}): name another folder.") from None


def write_config(
    folder: Path, bindings: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any], more: str = ""
) -> Path:
    """The demo's configuration, marked as such, with `more` tables as TOML; its path."""
    config = folder / _CONFIG
    write_private(config, _MARK + toml("sqlite:fanout.db", bindings, policy) + more)
    return config


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read: the file holds a (throw-away) key."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
